// SPDX-License-Identifier: MIT
// nodes/NAME/active and blockers: whether the node uses its image, and what may not be done to it.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

task<std::string> render_active(view_subject subject) {
  co_return subject.target->is_active() ? "1\n" : "0\n";
}

task<void> write_active(view_subject subject, std::string text) {
  if (text != "0" && text != "1")
    co_await fail(error_kind::invalid_argument,
                  "write 0 to give the image up to somebody else, 1 to take it back, not '{}'",
                  text);
  const auto alone = co_await subject.mount.looking.lock();
  // The node may have gone while others were waited for.
  node* target = nullptr;
  for (node* n : subject.root->nodes())
    if (n == subject.target)
      target = n;
  if (target == nullptr)
    co_await fail(error_kind::not_found, "the node is gone");
  co_await subject.root->place().run([&] {
    graph& nodes = target->owner();
    return text == "1" ? nodes.activate(*target) : nodes.deactivate(*target);
  });
}

task<std::string> render_blockers(view_subject subject) {
  std::string text;
  for (const operation_blockers::blocker& b : subject.target->all_blockers()) {
    std::string names;
    for (unsigned i = 0; i < node_operation_count; i++)
      if (const auto what = static_cast<node_operation>(i); (b.forbidden & bit(what)) != 0)
        names += (names.empty() ? "" : " ") + std::string(to_string(what));
    text += fmt::format("{}: {}\n", b.reason, names);
  }
  co_return text;
}

} // namespace

extern constinit const view node_active_view{
    .name = "active",
    .summary = "0 gives the image up to another process, 1 takes it back",
    .render = render_active,
    .write = write_active,
    .changes_graph = true};
extern constinit const view node_blockers_view{.name = "blockers",
                                               .summary = "what may not be done to it, and why",
                                               .render = render_blockers};

} // namespace bgfs
