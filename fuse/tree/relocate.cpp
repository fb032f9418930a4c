// SPDX-License-Identifier: MIT
#include "fuse/tree/relocate.h"

#include "fuse/tree/passing.h"
#include "graph/model/migration.h"

#include <algorithm>
#include <deque>

namespace bgfs {
namespace {

std::vector<exported_root*> roots_above(const mount_state& mount,
                                        const std::vector<node*>& component) {
  std::vector<exported_root*> found;
  for (const root_pointer& r : mount.roots)
    if (r->attached() != nullptr &&
        std::ranges::find(component, &r->attached()->top()) != component.end())
      found.push_back(r.get());
  return found;
}

task<void> carry(node& any_of_it, graph& from, graph& to) {
  moving_component moving = co_await run_on(from.home(), from.let_go(any_of_it));
  co_await run_on(to.home(), to.take_in(std::move(moving)));
}

task<void> move_component(mount_state& mount, node& any_of_it, graph& to) {
  graph& from = any_of_it.owner();
  if (&from == &to)
    co_return;
  const std::vector<exported_root*> roots = roots_above(mount, component_of(any_of_it));
  std::vector<std::optional<breakpoints_off>> passing; // who is there may be kept at one
  for (exported_root* r : roots) {
    std::optional<breakpoints_off> one = co_await let_requests_pass(*r);
    passing.push_back(std::move(one));
  }
  std::deque<residence::closure> closed;
  for (exported_root* r : roots)
    closed.emplace_back(r->place());
  for (residence::closure& c : closed)
    co_await c.wait_until_empty();
  co_await shielded(carry(any_of_it, from, to));
  for (exported_root* r : roots)
    r->place().move_to(to);
}

} // namespace

task<void> gather(mount_state& mount, std::vector<node*> nodes, graph& to) {
  for (node* n : nodes)
    co_await move_component(mount, *n, to);
}

task<void> settle(mount_state& mount) {
  for (const root_pointer& r : mount.roots) {
    if (r->attached() == nullptr)
      continue;
    const result<graph*> home = mount.graph_of(r->spec().iothread);
    BGFS_ASSERT(home.has_value(), "a thread that was started before is there");
    co_await shielded(move_component(mount, r->attached()->top(), **home));
  }
}

} // namespace bgfs
