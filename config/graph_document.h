// SPDX-License-Identifier: MIT
// One YAML file of a graph - the graph file itself or an included fragment - read and held against
// the schemas, but not yet against the other files.
#pragma once

#include "config/export_schema.h"
#include "config/node_definition.h"
#include "config/references.h"
#include "config/secrets.h"

namespace bgfs {

struct graph_document {
  std::string path; // absolute
  bool is_fragment = false;
  std::vector<std::unique_ptr<node_definition>> nodes;
  bool has_exports = false; // the key is there; it may be an empty list
  std::vector<parsed_export> exports;
  // Of a fragment that is wrong: what it says, as far as it can be told, so that its roots can be
  // shown as failed and nodes that need its nodes can say why they cannot be had.
  std::optional<error> failure;
  std::vector<std::string> lost_nodes;
  std::vector<export_spec> lost_exports;
};

struct graph_documents {
  std::vector<graph_document> all; // the graph file first
  reference_policy policy;
  std::vector<secret_source> secrets;
};

inline constexpr std::size_t fragments_max = 10'000;

// Fails where the graph file is wrong. A wrong fragment is in the list, with its failure.
[[nodiscard]] result<graph_documents> read_graph_documents(const std::string& path,
                                                           const registry& drivers);

// Marks a fragment as wrong because of what only shows beside the other files.
void lose(graph_document& fragment, error why);

} // namespace bgfs
