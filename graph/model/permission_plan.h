// SPDX-License-Identifier: MIT
// Changing permissions as a plan: compute what every edge below would take and share, check it all,
// then commit or abort. Nothing here suspends.
#pragma once

#include "graph/model/graph.h"

namespace bgfs {

// The rule of an edge's role (reference section 1.10): what it takes from its child and lets others
// do, given what its parent node's own parents take and share together.
[[nodiscard]] permissions permissions_by_role(child_role roles, bool parent_is_read_only,
                                              permissions parents);

class permission_plan {
public:
  permission_plan() = default;
  ~permission_plan() { abort(); }
  permission_plan(const permission_plan&) = delete;
  permission_plan& operator=(const permission_plan&) = delete;

  // Gives an edge without a parent node what it wants; refused by `prepare` if it conflicts.
  void want(edge& e, permissions wanted);
  // Recomputes everything below `top`, checks it and lets drivers take their locks. The error names
  // both users and what to do. On failure the plan is aborted.
  [[nodiscard]] result<> prepare(node& top);
  // The same for the whole graph.
  [[nodiscard]] result<> prepare(graph& all);
  void commit() noexcept;
  void abort() noexcept;

private:
  struct change {
    edge* which;
    permissions before;
  };
  void set(edge& e, permissions p);
  [[nodiscard]] result<> prepare_ordered(const std::vector<node*>& order);
  [[nodiscard]] result<> check_holder(node& n);
  [[nodiscard]] result<> check_node(node& n);
  std::vector<change> changes_;
  struct told {
    node* holder;
    permissions what;
  };
  std::vector<told> checked_;
};

} // namespace bgfs
