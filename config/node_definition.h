// SPDX-License-Identifier: MIT
// One node as it is written - in a graph file, a json: name or the options of a command - held
// against its driver's schema. It opens nothing; make_spec turns it into what graph::open takes.
#pragma once

#include "graph/model/graph.h"

namespace bgfs {

struct node_definition {
  struct child {
    const child_slot* slot = nullptr;
    std::variant<std::string, std::unique_ptr<node_definition>> target; // a node's name, or inline
    source_mark mark;
  };

  std::string node_name; // empty: none was given
  const driver_type* type = nullptr;
  options given; // the driver's own and those of every node
  std::vector<child> children;
  bool has_no_backing = false;
  source_mark mark;
  // For inline children: where they stand, which decides what they inherit.
  const node_definition* parent = nullptr;
  const child_slot* slot_in_parent = nullptr;

  // "node 'web'", "the 'file' of node 'web'".
  [[nodiscard]] std::string describe() const;
};

struct definition_rules {
  const registry& drivers;
  // What host paths are relative to; empty: they stay as they are.
  std::string directory = {};
  // json: names and command lines may leave out the driver of a primary child: a host file.
  bool has_implied_drivers = false;
};

// Checks the definition and everything inline below it.
[[nodiscard]] result<std::unique_ptr<node_definition>> define_node(const value& given,
                                                                   const definition_rules& rules);

// Letters, digits, '-', '.' and '_', a letter first; at most 127 bytes.
[[nodiscard]] result<> check_node_name(std::string_view name);

// What a definition means within its graph.
struct spec_context {
  // Nobody writes through this node, so it is opened read-only unless it says otherwise.
  std::function<bool(const node_definition&)> is_written;
  // Inline nodes that others refer to by name: they are opened by themselves and referred to.
  std::function<bool(const node_definition&)> is_separate;
  bool is_all_read_only = false; // even where `read-only: false` is given
  // What a definition without a parent inherits, and as what; null: nothing.
  const node_options* inherited = nullptr;
  child_role inherited_as = 0;
};

[[nodiscard]] node_options effective_options(const node_definition& d, const spec_context& context);
[[nodiscard]] node_spec make_spec(const node_definition& d, const spec_context& context);

// The names that this definition and its inline children refer to.
struct node_reference {
  const node_definition* from = nullptr;
  const node_definition::child* child = nullptr;
  [[nodiscard]] const std::string& name() const { return std::get<std::string>(child->target); }
};
void for_each_definition(const node_definition& d,
                         const std::function<void(const node_definition&)>& visit);
[[nodiscard]] std::vector<node_reference> references_of(const node_definition& d);

} // namespace bgfs
