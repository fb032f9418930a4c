// SPDX-License-Identifier: MIT
// What a graph_config holds: the documents, and what follows from seeing them together.
#pragma once

#include "config/graph_document.h"

#include <map>
#include <set>

namespace bgfs {

struct graph_config::content {
  explicit content(const registry& r) : drivers(r) {}

  const registry& drivers;
  std::string source;
  graph_state state;
  std::vector<graph_document> documents; // they own the definitions
  reference_policy policy;
  std::vector<secret_source> secret_sources;
  std::shared_ptr<const secret_store> secrets; // shared with the nodes opened with them
  std::vector<std::string> allowed_always;     // of --allow-references
  bool is_read_only = false;

  // Every named node of the documents that are not lost, inline ones among them.
  std::map<std::string, const node_definition*, std::less<>> named;
  // Inline nodes that somebody refers to by name.
  std::set<const node_definition*> separate;
  // What a writable root writes through.
  std::set<const node_definition*> written;
  // What a filter writes that stores what others read (driver_type::writes_when_read), and itself.
  std::set<const node_definition*> written_unchanged;
  // The thread of every node whose component has one.
  std::map<const node_definition*, std::string> iothreads;
  // Nodes and roots that cannot be had because of a lost fragment, and why.
  std::map<std::string, error, std::less<>> lost_nodes;
  std::map<std::string, error, std::less<>> lost_exports;
  std::vector<export_spec> exports;
  // How many of the exports reach a node that is opened by itself, and how many of those write.
  struct reach {
    std::size_t roots = 0;
    std::size_t writers = 0;
  };
  std::map<std::string, reach, std::less<>> reached;
  std::vector<error> warnings;

  std::unique_ptr<policy_resolver> trusting;
  std::unique_ptr<policy_resolver> distrusting;

  [[nodiscard]] spec_context context() const;
  // The nodes that must be open before this one, by name: what it refers to, and inline nodes of
  // its own that others refer to.
  [[nodiscard]] std::vector<std::string> needs_of(const node_definition& d) const;
};

// A mistake that shows only beside the other documents, and whose it is.
struct document_failure {
  std::size_t document = 0;
  error why;
};

// Fills `named` and finds names given twice, references to nothing and in circles, roots over
// nothing, and roots that write what must not be written. Nothing is kept of an earlier call.
[[nodiscard]] std::optional<document_failure> link_documents(graph_config::content& c);

// Links the documents, giving up wrong fragments one by one; fails if the graph file is wrong.
[[nodiscard]] result<graph_config> make_graph_config(std::unique_ptr<graph_config::content> c);

} // namespace bgfs
