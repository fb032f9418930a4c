// SPDX-License-Identifier: MIT
// The steps of one edit and how each is undone; for graph/model/edit.cpp. The affected part of the
// graph is drained, and no other edit runs.
#pragma once

#include "graph/model/edit.h"
#include "graph/model/permission_plan.h"

namespace bgfs {

class graph_transaction {
public:
  graph_transaction(graph& g, graph_edit edit) : graph_(g), edit_(std::move(edit)) {}
  graph_transaction(const graph_transaction&) = delete;
  graph_transaction& operator=(const graph_transaction&) = delete;

  // What can be refused without having touched anything.
  [[nodiscard]] result<> check() const;
  task<void> prepare();
  // After prepare has failed, wherever it did.
  task<void> roll_back();
  void commit();
  // After commit: closes what left. Errors are collected.
  task<edit_outcome> finish();

private:
  struct saved_edge { // where an edge led before
    edge* which;
    node* child;
  };
  struct saved_node { // what a step replaced in a node
    node* which;
    options given;
    node_options generic;
    node_options requested;
    edge* backing;
    edge* primary;
    bool has_no_backing;
    bool has_backing_of_header;
  };
  struct removed_edge {
    node* parent;
    std::ptrdiff_t index; // where it stood
    std::unique_ptr<edge> what;
  };

  [[nodiscard]] result<> step(std::string_view name, const node* about = nullptr) const;
  [[nodiscard]] result<> check_kept_child(const child_step& s) const;
  task<void> flush_affected();
  task<void> suspend_leaving();
  task<void> open_new();
  task<void> prepare_reopens();
  [[nodiscard]] result<> move_edges();
  [[nodiscard]] result<> change_child(const child_step& s);
  [[nodiscard]] result<> replace(const replace_step& s);
  [[nodiscard]] result<> move_roots();
  [[nodiscard]] result<> check_left() const;
  [[nodiscard]] result<> check_loops() const;
  [[nodiscard]] result<node*> target(std::string_view name, std::string_view wanted_by) const;
  void save(node& n);
  void lead(edge& e, node& to);
  void undo_edges();
  void refresh_changed();

  graph& graph_;
  graph_edit edit_;
  std::size_t nodes_before_ = 0;
  std::vector<node*> suspended_;
  std::vector<node*> prepared_;
  std::vector<saved_edge> moved_edges_;
  std::vector<edge*> added_edges_;
  std::vector<removed_edge> removed_edges_;
  std::vector<saved_node> saved_nodes_;
  std::vector<std::unique_ptr<root>> attached_;
  permission_plan permissions_;
};

} // namespace bgfs
