// SPDX-License-Identifier: MIT
// size: the length of the disk. "20G" and "+1G" grow it; fewer bytes only as "shrink 10G".
#include "fuse/views/size_command.h"

#include "fuse/views/common.h"
#include "graph/base/text.h"

namespace bgfs {

result<size_command> parse_size_command(std::string_view text, u64 current) {
  size_command command;
  std::string_view number = text;
  if (number.starts_with("shrink ")) {
    command.may_shrink = true;
    number.remove_prefix(std::string_view("shrink ").size());
  }
  const bool is_relative = !command.may_shrink && number.starts_with('+');
  if (is_relative)
    number.remove_prefix(1);
  const result<u64> parsed = parse_size(number);
  if (!parsed)
    return fail(error_kind::invalid_argument, "'{}' is no size: write '20G', '+1G' or 'shrink 10G'",
                text);
  const auto length = is_relative ? checked_add(current, *parsed) : std::optional(*parsed);
  if (!length || *length > device_length_max)
    return fail(error_kind::invalid_argument, "'{}' is more than any disk may have ({:#x} bytes)",
                text, device_length_max);
  command.length = *length;
  if (command.may_shrink && command.length > current)
    return fail(error_kind::invalid_argument,
                "'{}' would not shrink a disk of {} bytes; write the size alone to grow it", text,
                current);
  return command;
}

namespace {

task<std::string> render(view_subject subject) {
  co_return fmt::format("{}\n", subject.root->disk()->length());
}

task<void> write(view_subject subject, std::string text) {
  raw_disk& disk = *subject.root->disk();
  if (subject.mount.is_writeback())
    co_await fail(error_kind::busy,
                  "the kernel owns the length of '{}' while it is mounted with -o writeback; "
                  "truncate the raw file itself",
                  subject.root->name());
  co_await disk.require_resizable();
  const size_command command = co_await parse_size_command(text, disk.length());
  co_await disk.resize(command.length, command.may_shrink);
  // Who reads the new part afterwards must not find what the kernel kept of an older one.
  co_await run_on(subject.mount.home, subject.mount.settle_with_kernel());
}

} // namespace

extern constinit const view size_view{
    .name = "size",
    .summary = "the length in bytes; write 20G or +1G to grow, shrink 10G to shrink",
    .render = render,
    .write = write};

} // namespace bgfs
