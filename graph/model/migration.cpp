// SPDX-License-Identifier: MIT
#include "graph/model/migration.h"

#include "graph/io/spawn.h"

#include <algorithm>
#include <ranges>
#include <set>

namespace bgfs {

std::vector<node*> component_of(node& n) {
  std::vector<node*> found = {&n};
  std::set<const node*> known = {&n};
  const auto meet = [&](node& other) {
    if (known.insert(&other).second)
      found.push_back(&other);
  };
  for (std::size_t i = 0; i < found.size(); i++) {
    for (const auto& below : found[i]->children())
      meet(below->child());
    for (const edge* above : found[i]->parents())
      if (above->parent() != nullptr)
        meet(*above->parent());
  }
  return found;
}

// Drained until it has arrived: nothing in it begins anything by itself on the way.
task<moving_component> graph::let_go(node& any_of_it) {
  const async_mutex::guard editing = co_await edits_.lock();
  const std::vector<node*> nodes = component_of(any_of_it);
  moving_component moving;
  moving.drain_ = co_await shielded(drain(nodes));
  const auto is_moving = [&](const node& n) { return std::ranges::find(nodes, &n) != nodes.end(); };
  for (node* n : nodes_parents_first())
    if (is_moving(*n) && n->driver_ != nullptr)
      n->instance().detach_loop();
  for (auto at = nodes_.begin(); at != nodes_.end();) {
    const auto next = std::next(at);
    if (is_moving(**at)) {
      remove_name(**at);
      moving.nodes_.splice(moving.nodes_.end(), nodes_, at);
    }
    at = next;
  }
  for (auto at = roots_.begin(); at != roots_.end();) {
    const auto next = std::next(at);
    if (is_moving((*at)->top())) {
      BGFS_ASSERT((*at)->resumed_.is_empty(), "M13: requests wait where the component came from");
      moving.roots_.splice(moving.roots_.end(), roots_, at);
    }
    at = next;
  }
  drains_.remove(moving.drain_.get());
  co_return moving;
}

task<void> graph::take_in(moving_component component) {
  std::vector<node*> arrived;
  for (const auto& n : component.nodes_) {
    n->owner_ = this;
    add_name(*n);
    arrived.push_back(n.get());
  }
  nodes_.splice(nodes_.end(), component.nodes_);
  roots_.splice(roots_.end(), component.roots_);
  for (node* n : std::views::reverse(nodes_parents_first()))
    if (n->driver_ != nullptr && std::ranges::find(arrived, n) != arrived.end())
      n->instance().attach_loop(home_);
  component.drain_->graph_ = this;
  drains_.push_back(component.drain_.get());
  co_await component.drain_->release();
}

} // namespace bgfs
