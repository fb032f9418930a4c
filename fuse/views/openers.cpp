// SPDX-License-Identifier: MIT
// openers: who has the raw file open: pid, command, how.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

task<std::string> render(view_subject subject) {
  std::string text;
  for (const opener& o : subject.root->openers)
    text += fmt::format("{} {} {}{}{}\n", o.pid, o.command.empty() ? "?" : o.command,
                        o.is_writing ? "rw" : "ro", o.is_passed_through ? " passthrough" : "",
                        o.partition != 0 ? fmt::format(" partitions/{}", o.partition) : "");
  co_return text;
}

} // namespace

extern constinit const view openers_view{
    .name = "openers",
    .summary = "who has the raw file open: pid, command, ro or rw, and whether "
               "the kernel serves it by itself (passthrough); or which partition of it",
    .render = render,
    .needs_medium = false};

} // namespace bgfs
