// SPDX-License-Identifier: MIT
// .bgfs/log, log-level: what the trace points say, and which of them are on.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

line_ring& log_of(mount_state& mount) {
  return mount.log_lines.lines();
}

task<std::string> render_levels(view_subject subject) {
  co_return describe_levels(subject.mount.tracing);
}

task<void> write_levels(view_subject subject, std::string text) {
  co_await set_levels(subject.mount.tracing, text);
}

} // namespace

extern constinit const view log_view{
    .name = "log",
    .summary = "what the trace points said ('bgfs trace-points'); read on for what follows",
    .lines = log_of};
extern constinit const view log_level_view{
    .name = "log-level",
    .summary = "what is traced; takes 'info', 'debug model', 'trace fuse file', 'off'",
    .render = render_levels,
    .write = write_levels};

} // namespace bgfs
