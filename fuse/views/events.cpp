// SPDX-License-Identifier: MIT
// .bgfs/events, events-fd: what happens, as it happens.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

line_ring& events_of(mount_state& mount) {
  return mount.events.lines();
}

task<std::string> render_events_fd(view_subject subject) {
  co_return fmt::format("{}\n", subject.mount.events.wake_fd());
}

} // namespace

extern constinit const view events_view{
    .name = "events",
    .summary = "what happened, a line of JSON each; ends at the last one, read on for the next",
    .lines = events_of};
extern constinit const view events_fd_view{
    .name = "events-fd",
    .summary = "the descriptor of the serving process that changes with each event (inotify)",
    .render = render_events_fd};

} // namespace bgfs
