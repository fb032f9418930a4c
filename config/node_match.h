// SPDX-License-Identifier: MIT
// Holds a definition against the node of the same name, for reload_plan.cpp: what of it can stay.
#pragma once

#include "config/reload_plan.h"

#include <map>
#include <set>

namespace bgfs {

struct judged_node;

struct judged_child {
  std::string slot;
  std::string name; // a node that is opened by itself; empty: defined in place, or removed
  std::unique_ptr<judged_node> in_place;
  bool is_removed = false;
  bool is_changed = false; // the slot leads elsewhere afterwards
};

struct judged_node {
  node* live = nullptr; // null: there was none
  const node_spec* spec = nullptr;
  node_fate fate = node_fate::opened;
  std::string reason;
  std::vector<judged_child> children; // of the definition, and slots that become empty

  [[nodiscard]] bool is_opened_anew() const {
    return fate == node_fate::opened || fate == node_fate::replaced;
  }
};

class node_matcher {
public:
  // `judged`: the named nodes judged so far; what a definition refers to is among them. `forced`:
  // live nodes that are replaced whatever they look like.
  node_matcher(const std::map<std::string, judged_node>& judged, std::set<const node*>& forced,
               bool may_reopen)
      : judged_(judged), forced_(forced), may_reopen_(may_reopen) {}

  [[nodiscard]] judged_node judge(node* live, const node_spec& spec) const;
  // Below what is opened anew nothing is reopened or rewired: such nodes are forced. True if that
  // added any.
  bool force_below(const judged_node& j);

private:
  [[nodiscard]] std::vector<judged_child> match_children(const node* live,
                                                         const node_spec& spec) const;
  [[nodiscard]] judged_child match_child(const node* live, const child_spec& wanted) const;
  [[nodiscard]] std::string reason_to_replace(const node& live, const node_spec& spec,
                                              std::span<const judged_child> children) const;
  const std::map<std::string, judged_node>& judged_;
  std::set<const node*>& forced_;
  bool may_reopen_;
};

} // namespace bgfs
