// SPDX-License-Identifier: MIT
// GRAPH.yaml.state: what changed in a graph at run time and the graph file does not know - another
// backing node, another active image of a root. Written within the transaction that makes the
// change, and in force whenever the graph file is read: without it a mount after a pivot would open
// the wrong image for writing.
//
//   version: 1
//   nodes:    [...]              # definitions that came at run time, as in the graph file
//   backing:  { web: base2 }     # node: its backing node now; null: none
//   exports:  { web: overlay1 }  # root: the node it shows now
//   snapshots:                   # root: its external snapshots, oldest first
//     web: [ { id: "1", name: before, node: web, length: 1048576, date-sec: 1790000000, date-nsec:
//     0 } ]
#pragma once

#include "graph/base/result.h"
#include "graph/base/value.h"

#include <map>
#include <optional>

namespace bgfs {

// The disk of a root as it was: what a node shows that nobody writes to any more.
struct external_snapshot {
  std::string id; // no other one of the root has it, nor had
  std::string name;
  std::string node;
  u64 length = 0; // of the disk, bytes
  i64 date_seconds = 0;
  i64 date_nanoseconds = 0;
};

struct graph_state {
  value::list nodes;
  std::map<std::string, std::optional<std::string>> backing;
  std::map<std::string, std::string> exports;
  std::map<std::string, std::vector<external_snapshot>> snapshots;
  std::string path; // absolute, of the state file

  [[nodiscard]] bool is_empty() const {
    return nodes.empty() && backing.empty() && exports.empty() && snapshots.empty();
  }
};

[[nodiscard]] std::string state_path_of(const std::string& graph_path);
// No file is an empty state. Errors say file:line:column. Blocks.
[[nodiscard]] result<graph_state> read_graph_state(const std::string& graph_path);
// Replaces the file atomically and makes that durable; an empty state removes it. Blocks.
[[nodiscard]] result<> write_graph_state(const graph_state& state);

struct graph_documents;
class registry;
// Puts the state in force: as if the documents had said so. A state that does not fit them is an
// error that says what to do about it.
[[nodiscard]] result<> apply_graph_state(const graph_state& state, graph_documents& documents,
                                         const registry& drivers);

} // namespace bgfs
