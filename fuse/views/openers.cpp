// SPDX-License-Identifier: MIT
// openers: who has the raw file open: pid, command, how.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

task<std::string> render(view_subject subject) {
  std::string text;
  const auto add = [&text](const opener& o, std::string_view what) {
    text +=
        fmt::format("{} {} {}{}{}\n", o.pid, o.command.empty() ? "?" : o.command,
                    o.is_writing ? "rw" : "ro", o.is_passed_through ? " passthrough" : "", what);
  };
  for (const opener& o : subject.root->openers)
    add(o, {});
  for (const auto& [number, list] : subject.root->open_views)
    for (const opener& o : list)
      add(o, " " + o.what);
  co_return text;
}

} // namespace

extern constinit const view openers_view{
    .name = "openers",
    .summary =
        "who has the raw file open: pid, command, ro or rw, and whether the kernel serves it "
        "by itself (passthrough); of layers also their path",
    .render = render,
    .needs_medium = false};

} // namespace bgfs
