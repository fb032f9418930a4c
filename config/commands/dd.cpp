// SPDX-License-Identifier: MIT
// bgfs dd: copy a part of an image into a new one, with dd's operands.
#include "config/commands/new_image.h"
#include "config/commands/verb_frame.h"
#include "graph/base/text.h"
#include "graph/io/file.h"
#include "graph/jobs/copy.h"

#include <sys/stat.h>
#include <unistd.h>

namespace bgfs {

namespace {

constexpr u64 block_length_max = 0x7fff'ffff;

struct dd_arguments {
  image_choice source;
  image_choice target; // all but what making it says
  session_options session;
  std::string format = "raw"; // -O
  u64 block_length = 512;
  std::optional<u64> count; // of blocks from the beginning of the input, skipped ones included
  u64 skip = 0;
  std::optional<u64> output_length; // osize
};

// The part of the input that is copied.
result<byte_range> part_of(u64 length, const dd_arguments& a) {
  const u64 end =
      a.count ? std::min(length, checked_mul(*a.count, a.block_length).value_or(length)) : length;
  const auto begin = checked_mul(a.skip, a.block_length);
  if (!begin || *begin > end)
    return byte_range{end, 0};
  return byte_range::between(*begin, end);
}

class dd_copy {
public:
  dd_copy(command_session& session, const command_call& call, const dd_arguments& a)
      : session_(session), call_(call), a_(a) {}

  task<void> run(open_image& source) {
    const byte_range part = co_await part_of(source.top().length(), a_);
    const bool is_beyond = part.is_empty() && a_.skip > 0 &&
                           checked_mul(a_.skip, a_.block_length).value_or(~u64{0}) > part.offset;
    if (is_beyond)
      complain(call_, fmt::format("{}: cannot skip to specified offset", a_.source.name));
    const u64 length = a_.output_length.value_or(part.length);
    co_await check_not_the_source(a_.target.name);
    co_await create(length);
    result<> copied =
        co_await as_result(copy(source, {part.offset, std::min(part.length, length)}));
    if (copied)
      co_return;
    // An image that is incomplete and was not there before is of no use to anybody.
    if (is_new_ && ::unlink(path_.c_str()) == 0)
      copied.error().add_context(fmt::format("'{}' was removed again", a_.target.name));
    else
      copied.error().add_context(fmt::format("'{}' is incomplete", a_.target.name));
    co_await std::move(copied);
  }

private:
  result<> check_not_the_source(const std::string& path) const {
    for (const auto& n : session_.nodes().nodes())
      if (is_same_file(n->host_path(), path))
        return fail(error_kind::invalid_argument,
                    "'{}' is needed to read the source: creating it anew would destroy it", path);
    return {};
  }

  task<void> create(u64 length) {
    prepared_image prepared = co_await prepare_new_image(
        session_, {.filename = a_.target.name, .format = a_.format, .length = length});
    path_ = prepared.job.file.filename;
    struct stat found{};
    is_new_ = ::lstat(path_.c_str(), &found) != 0;
    co_await context(create_image(session_.nodes(), std::move(prepared.job)), "cannot create '{}'",
                     a_.target.name);
  }

  task<void> copy(open_image& source, byte_range part) {
    image_choice target = a_.target;
    target.format = a_.format;
    target.is_writable = true;
    target.needs_backing = false;
    co_await with(open(session_.nodes(), target),
                  [&](open_image& to) { return copy_to(source.disk(), part, to); });
  }

  task<void> copy_to(root& from, byte_range part, open_image& to) {
    root_copy_target target(to.disk(), to.flags_of_writes());
    copy_plan plan{.to = &target, .target_reads_zero = !to.is_on_device()};
    plan.sources.push_back({.from = &from, .length = part.length, .offset = part.offset});
    co_await copy_disks(session_.home(), std::move(plan));
    co_await context(to.disk().flush(), "flushing '{}'", a_.target.name);
  }

  command_session& session_;
  const command_call& call_;
  const dd_arguments& a_;
  std::string path_;
  bool is_new_ = false;
};

task<void> dd_open(command_session& session, const command_call& call, const dd_arguments& a,
                   open_image& source) {
  dd_copy work(session, call, a);
  co_await work.run(source);
}

task<void> dd(command_session& session, const command_call& call, const dd_arguments& a) {
  co_await with(open(session.nodes(), a.source),
                [&](open_image& source) { return dd_open(session, call, a, source); });
}

result<> take_operand(const std::string& operand, dd_arguments& a) {
  const auto equals = operand.find('=');
  const std::string name = operand.substr(0, equals);
  const std::string given = equals == std::string::npos ? "" : operand.substr(equals + 1);
  if (equals == std::string::npos || (name != "if" && name != "of" && name != "bs" &&
                                      name != "count" && name != "skip" && name != "osize"))
    return fail(
        error_kind::invalid_argument,
        "unrecognized operand '{}'; they are if=, of=, bs=, count=, skip= and osize=", name);
  if (name == "if" || name == "of") {
    (name == "if" ? a.source : a.target).name = given;
    return {};
  }
  BGFS_TRY(const u64 number, context(parse_size(given), "operand '{}'", name));
  if (number > device_length_max)
    return fail(error_kind::out_of_range, "operand '{}' is at most {}, not {}", name,
                device_length_max, number);
  if (name == "bs") {
    if (number == 0 || number > block_length_max)
      return fail(error_kind::invalid_argument, "operand 'bs' is between 1 and {}, not {}",
                  block_length_max, number);
    a.block_length = number;
  }
  if (name == "count")
    a.count = number;
  if (name == "skip")
    a.skip = number;
  if (name == "osize")
    a.output_length = number;
  return {};
}

result<> take_operands(const std::vector<std::string>& operands, dd_arguments& a) {
  for (const std::string& operand : operands)
    BGFS_CHECK(take_operand(operand, a));
  if (a.source.name.empty() || a.target.name.empty())
    return fail(error_kind::invalid_argument,
                "both input (if=) and output (of=) are expected; see 'bgfs dd --help'");
  return {};
}

void declare(arguments& known, dd_arguments& a) {
  known.text('f', "format", "FORMAT", "the format of the input; absent: by its first bytes",
             a.source.format);
  known.text('O', "output-format", "FORMAT", "the format of the output; raw if not given",
             a.format);
  add_share_option(known, a.source);
  known.flag(0, "image-opts", "if= is a list of options: driver=...,file.filename=...",
             a.source.is_options);
  add_session_options(known, a.session);
}

} // namespace

int run_dd(const command_call& call) {
  dd_arguments a;
  arguments known(
      call.name, "[OPTION]... [bs=SIZE] [count=BLOCKS] [skip=BLOCKS] [osize=SIZE] if=FILE of=FILE",
      "Copies a part of an image into a new one: from block 'skip' up to block 'count', "
      "both counted\nfrom the beginning of the input, in blocks of 'bs' bytes (512). "
      "'osize' makes the new disk so long.");
  declare(known, a);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (const result<> ok = take_operands(parsed.operands, a); !ok) {
    complain(call, ok.error().message());
    return 1;
  }
  a.session.ends_in_order = true;
  return run_session(call, a.session,
                     [&](command_session& session) { return dd(session, call, a); });
}

} // namespace bgfs
