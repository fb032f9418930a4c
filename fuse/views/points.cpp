// SPDX-License-Identifier: MIT
// points/NAME/state: whether the instant is still there, and what it costs.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

task<std::string> render_state(view_subject subject) {
  root_points& all = subject.root->points();
  const point_pointer p = co_await all.find(subject.point);
  const point_state s = co_await all.state(p);
  std::string text = s.broken.empty() ? "ok\n" : fmt::format("broken\n{}\n", s.broken);
  text += fmt::format("kept: {}\n", s.kept);
  if (s.limit)
    text += fmt::format("limit: {}\n", *s.limit);
  co_return text;
}

} // namespace

extern constinit const view point_state_view{
    .name = "state",
    .summary = "ok, or broken with the reason below; then the bytes that it keeps",
    .render = render_state,
    .renders_on_mount_loop = true};

} // namespace bgfs
