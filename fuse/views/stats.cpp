// SPDX-License-Identifier: MIT
// stats: what was done so far, of a root and of a node.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

void add_statistics(std::string& text, const node& n) {
  const node_statistics& s = n.statistics();
  add_line(text, "reads", s.reads);
  add_line(text, "read-bytes", s.read_bytes);
  add_line(text, "writes", s.writes);
  add_line(text, "write-bytes", s.write_bytes);
  add_line(text, "zero-writes", s.zero_writes);
  add_line(text, "discards", s.discards);
  add_line(text, "flushes", s.flushes);
  add_line(text, "failed", s.failed);
  add_line(text, "write-highest-offset", s.write_highest_offset);
  add_line(text, "requests-in-flight", n.requests().in_flight());
}

task<std::string> render_root(view_subject subject) {
  std::string text;
  add_statistics(text, subject.root->disk()->top());
  add_line(text, "open-handles", subject.root->openers.size());
  co_return text;
}

task<std::string> render_node(view_subject subject) {
  std::string text;
  add_statistics(text, *subject.target);
  co_return text;
}

} // namespace

extern constinit const view root_stats_view{
    .name = "stats", .summary = "requests and bytes since it was opened", .render = render_root};
extern constinit const view node_stats_view{
    .name = "stats", .summary = "requests and bytes since it was opened", .render = render_node};

} // namespace bgfs
