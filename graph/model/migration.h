// SPDX-License-Identifier: MIT
// Moving a component from one loop to another: its nodes leave one graph and enter another, with
// their images open and their locks held.
#pragma once

#include "graph/model/graph.h"

namespace bgfs {

// All nodes connected with `n`, itself among them.
[[nodiscard]] std::vector<node*> component_of(node& n);

// A component between two graphs. Nothing may be asked of it.
class moving_component {
public:
  moving_component(moving_component&&) = default;
  moving_component& operator=(moving_component&&) = delete;
  ~moving_component() {
    BGFS_ASSERT(nodes_.empty(), "M13: a component that has left one graph enters another");
  }

private:
  friend class graph;
  moving_component() = default;
  std::list<std::unique_ptr<node>> nodes_;
  std::list<root*> roots_;
  std::unique_ptr<graph::drained> drain_;
};

} // namespace bgfs
