// SPDX-License-Identifier: MIT
// What lies between a serving graph and a configuration: which nodes stay, are reopened, replaced,
// opened or closed, and what becomes of each root. Made without opening, locking or changing
// anything; graph::apply carries it out.
//
// A node stays if its driver, options and children are the same. It is reopened if only options
// differ that its driver can change while it is open. It is rewired if only a child differs whose
// bytes its driver keeps no part of (a backing node, what a filter filters). Else it is replaced:
// a new one is opened over the children that stay.
#pragma once

#include "config/graph_config.h"
#include "graph/model/edit.h"

namespace bgfs {

// A root as it is served now.
struct live_root {
  const export_spec* spec = nullptr;
  root* attached = nullptr; // null: it is not open
  // It could not be opened: a reload leaves it alone and the mount tries it again afterwards.
  bool is_failed = false;
};

enum class root_fate : u8 { kept, changed, added, removed };
enum class node_fate : u8 { kept, rewired, reopened, replaced, opened, closed };
[[nodiscard]] std::string_view to_string(root_fate fate);
[[nodiscard]] std::string_view to_string(node_fate fate);

struct root_difference {
  std::string name;
  root_fate fate = root_fate::kept;
  std::string reason;         // "writable: true instead of false"
  bool has_new_nodes = false; // what it shows may differ
};

struct node_difference {
  std::string name;
  node_fate fate = node_fate::kept;
  std::string reason;
};

struct reload_plan {
  std::vector<root_difference> roots; // those of the new configuration first, in its order
  std::vector<node_difference> nodes;
  graph_edit edit;
  // For every attach_step of the edit, in their order: the index of its export.
  std::vector<std::size_t> attached_exports;

  [[nodiscard]] bool changes_nothing() const;
  // One line for each difference, and one that counts what stays.
  [[nodiscard]] std::string to_text() const;
};

struct plan_rules {
  // False: nodes whose options differ are replaced, for drivers that turned out not to be able to
  // change them while open.
  bool may_reopen = true;
  // Roots beside the exported ones, over nodes of the configuration: what is needed for them stays
  // open, as visitors (node_spec) if for nothing else.
  std::vector<const root*> beside = {};
};

// What a root is over, without the filters of its points: no configuration names those.
[[nodiscard]] node& below_points(node& top);

// `live`: the graphs of all loops of the mount, in none of which anything is opened or edited
// meanwhile.
[[nodiscard]] result<reload_plan> plan_reload(std::span<graph* const> live,
                                              const graph_config& next,
                                              std::span<const live_root> roots,
                                              plan_rules rules = {});

} // namespace bgfs
