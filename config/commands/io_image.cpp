// SPDX-License-Identifier: MIT
// The commands of `bgfs io` about the image as a whole.
#include "config/commands/io_session.h"

#include "config/commands/option_values.h"
#include "config/render_info.h"

#include <algorithm>

namespace bgfs {

namespace {

std::string size_of(u64 bytes) {
  return io_size(static_cast<double>(bytes));
}

// How much of the range, from its beginning, is alike in being held by the top layer or not.
task<std::pair<bool, u64>> allocation_run(io_session& session, byte_range range) {
  node& top = session.subject();
  block_status status = co_await top.status(range, false);
  const bool is_allocated = status.is_allocated;
  u64 length = std::min(status.length, range.length);
  while (length < range.length) {
    status = co_await top.status({range.offset + length, range.length - length}, false);
    if (status.is_allocated != is_allocated || status.length == 0)
      break;
    length = std::min(length + status.length, range.length);
  }
  co_return std::pair(is_allocated, length);
}

task<void> print_map(io_session& session) {
  byte_range rest{0, session.image().top().length()};
  while (!rest.is_empty()) {
    const auto [is_allocated, length] = co_await allocation_run(session, rest);
    print(fmt::format("{} ({:#x}) bytes {} allocated at offset {} ({:#x})\n", size_of(length),
                      length, is_allocated ? "   " : "not", size_of(rest.offset), rest.offset));
    rest = byte_range::between(rest.offset + length, rest.end());
  }
}

task<u64> count_allocated(io_session& session, byte_range range) {
  u64 count = 0;
  while (!range.is_empty()) {
    const auto [is_allocated, length] = co_await allocation_run(session, range);
    if (length == 0)
      break;
    count += is_allocated ? length : 0;
    range = byte_range::between(range.offset + length, range.end());
  }
  co_return count;
}

// Resizing takes a permission that plain writers do not hold, or writes past the end would grow a
// raw image.
task<void> truncate_through(root& resizer, u64 length, truncate_options options) {
  co_await resizer.truncate(length, options);
}

task<void> truncate(io_session& session, u64 length, truncate_options options) {
  const permissions wanted{permission::consistent_read | permission::write | permission::resize,
                           permission::all};
  co_await with(session.session().nodes().attach("truncate", session.image().top(), wanted),
                [=](root& resizer) { return truncate_through(resizer, length, options); });
}

} // namespace

task<bool> io_truncate(io_session& session, std::vector<std::string> given) {
  const auto words = take_words("truncate", given, "m:");
  if (!words)
    co_return false;
  if (words->operands.size() != 1) {
    io_complain("truncate: one length is expected");
    co_return false;
  }
  truncate_options options;
  if (words->has('m')) {
    const result<> mode = take_preallocation(words->flags.at('m'), options.prealloc);
    if (!mode) {
      io_complain(fmt::format("truncate: {}", mode.error().message()));
      co_return false;
    }
  }
  const auto length = take_number(words->operands[0]);
  if (!length)
    co_return false;
  result<> outcome = co_await as_result(truncate(session, *length, options));
  if (!outcome)
    io_complain(fmt::format("bgfs io: {}", outcome.error().message()));
  co_return outcome.has_value();
}

task<bool> io_length(io_session& session, std::vector<std::string>) {
  print(size_of(session.image().top().length()) + "\n");
  co_return true;
}

task<bool> io_map(io_session& session, std::vector<std::string>) {
  result<> outcome = co_await as_result(print_map(session));
  if (!outcome)
    co_return report_failure("map", outcome.error());
  co_return true;
}

task<bool> io_alloc(io_session& session, std::vector<std::string> words) {
  const auto offset = take_number(words[0]);
  if (!offset)
    co_return false;
  const u64 end = session.image().top().length();
  u64 count = 512;
  if (words.size() == 2) {
    const auto given = take_number(words[1]);
    if (!given)
      co_return false;
    count = *given;
  }
  // Also past the end, where nothing is allocated; as much as is there is looked at.
  const u64 looked_at = *offset < end ? std::min(count, end - *offset) : 0;
  result<u64> allocated = co_await as_result(count_allocated(session, {*offset, looked_at}));
  if (!allocated)
    co_return report_failure("alloc", allocated.error());
  print(
      fmt::format("{}/{} bytes allocated at offset {}\n", *allocated, looked_at, size_of(*offset)));
  co_return true;
}

task<bool> io_info(io_session& session, std::vector<std::string>) {
  const node& top = session.subject();
  const driver_info details = top.instance().info();
  print(fmt::format("format name: {}\n", top.type().name));
  print(fmt::format("cluster size: {}\n", size_of(details.cluster_size)));
  print(fmt::format("vm state offset: {}\n", size_of(details.vmstate_offset)));
  print(render_format_specific(details.format_specific));
  co_return true;
}

namespace {

bool apply_cache(const std::string& name, image_choice& choice) {
  const result<host_cache> cache = parse_host_cache(name);
  if (!cache) {
    io_complain(fmt::format("bgfs io: {}", cache.error().message()));
    return false;
  }
  choice.cache = *cache;
  return true;
}

bool apply_flags(const io_words& words, image_choice& choice) {
  choice.is_writable = !words.has('r');
  choice.is_force_shared = words.has('U');
  choice.is_temporary = words.has('s');
  choice.copies_on_read = words.has('C');
  if (words.has('k'))
    choice.aio = "io_uring";
  if (words.has('n'))
    choice.cache = host_cache::none;
  if (words.has('t') && !apply_cache(words.flags.at('t'), choice))
    return false;
  if (words.has('d')) {
    const std::string& mode = words.flags.at('d');
    choice.discards = mode == "unmap" || mode == "on";
    if (!choice.discards && mode != "ignore" && mode != "off") {
      io_complain(fmt::format("Invalid discard option: {}", mode));
      return false;
    }
  }
  return true;
}

} // namespace

task<bool> io_open(io_session& session, std::vector<std::string> given) {
  const auto words = take_words("open", given, "rsnCkUt:d:o:");
  if (!words)
    co_return false;
  if (words->operands.size() > 1 || (words->operands.empty() && !words->has('o'))) {
    io_complain("open: one image is expected; see 'help open'");
    co_return false;
  }
  image_choice choice = session.defaults();
  if (!apply_flags(*words, choice))
    co_return false;
  if (!words->operands.empty())
    choice.name = words->operands[0];
  if (words->has('o'))
    choice.extra_options = words->flags.at('o');
  choice.is_options = words->operands.empty();
  if (choice.is_options) {
    choice.name = std::exchange(choice.extra_options, {});
    choice.format.clear();
  }
  co_return co_await session.open_image_of(std::move(choice));
}

task<bool> io_close(io_session& session, std::vector<std::string>) {
  co_return co_await session.close_image();
}

// Closes and opens again: nothing else uses the image, so nobody can see the moment between.
task<bool> io_reopen(io_session& session, std::vector<std::string> given) {
  const auto words = take_words("reopen", given, "rwc:o:");
  if (!words || !words->operands.empty())
    co_return false;
  if (words->has('r') && words->has('w')) {
    io_complain("Only one -r/-w option can be specified");
    co_return false;
  }
  image_choice choice = session.image().choice();
  if (words->has('r') || words->has('w'))
    choice.is_writable = words->has('w');
  if (words->has('c') && !apply_cache(words->flags.at('c'), choice))
    co_return false;
  if (words->has('o'))
    choice.extra_options += (choice.extra_options.empty() ? "" : ",") + words->flags.at('o');
  if (choice.is_temporary) {
    io_complain("bgfs io: what was written to the temporary overlay would be lost");
    co_return false;
  }
  image_choice before = session.image().choice();
  const bool is_closed = co_await session.close_image();
  if (!is_closed)
    co_return false;
  const bool is_open = co_await session.open_image_of(std::move(choice));
  if (!is_open) {
    const bool is_as_before = co_await session.open_image_of(std::move(before));
    (void)is_as_before; // it has said so
  }
  co_return is_open;
}

} // namespace bgfs
