// SPDX-License-Identifier: MIT
// A change of the graph while it serves, as one transaction: nodes come, go, are reopened with
// other options, edges are led elsewhere. Either all of it happens or, whatever fails, the graph
// goes on as it was. Reload, the insertion of filters, a new backing file and later jobs are all
// edits.
//
// The order in which an edit is prepared (graph/ARCHITECTURE.md, "The life of an edit", says why):
// drain, flush, suspend what leaves, open what comes, prepare reopens, move edges, permissions.
// What follows - the commit - cannot fail.
#pragma once

#include "graph/model/graph.h"

namespace bgfs {

// An open node goes on with other options of its own (face `reopenable`).
struct reopen_step {
  node* target = nullptr;
  options given;
  node_options generic;
};

// A node's child in one slot becomes another; an empty name takes it away. Only children whose
// bytes the driver does not keep in memory can be changed below it: backing and filtered ones.
//
// Of a driver that keeps any number of children (face `child_keeper`), an empty slot adds one.
struct child_step {
  node* parent = nullptr;
  std::string slot;
  std::string child; // a node that is open, or that the same edit opens
};

// A root goes on over another node, with other permissions, or both.
struct root_step {
  root* which = nullptr;
  std::string top;
  permissions wanted;
};

// A root that comes with the edit. `made` gets it on success.
struct attach_step {
  std::string name;
  std::string top;
  permissions wanted;
  root_observer* observer = nullptr;
  std::unique_ptr<root>* made = nullptr;
};

// Every parent of one node, roots among them, gets another node instead - except what lies between
// (a filter that is put over a node keeps that node as its own child).
struct replace_step {
  node* from = nullptr;
  std::string to;
};

struct graph_edit {
  // Not needed afterwards: suspended first, so that what comes may open the same images, and closed
  // at the end.
  std::vector<node*> leaving;
  std::vector<node_spec> opens; // first things first; may refer to nodes that stay
  std::vector<reopen_step> reopens;
  std::vector<child_step> children;
  std::vector<replace_step> replaces;
  std::vector<root_step> roots;
  std::vector<attach_step> attaches;
  std::vector<root*> releases; // roots that end; `release` on them later does nothing more
  // Visitors (node_spec::is_visitor) that are none afterwards, and nodes that are from then on.
  std::vector<node*> adopts;
  std::vector<node*> lets_go;
  // The last step before the commit: what must be true of the new graph, or kept outside of it.
  std::function<task<void>()> before_commit;

  [[nodiscard]] bool is_empty() const {
    return leaving.empty() && opens.empty() && reopens.empty() && children.empty() &&
           replaces.empty() && roots.empty() && attaches.empty() && releases.empty() &&
           adopts.empty() && lets_go.empty();
  }
};

struct edit_outcome {
  // What went wrong after the commit: the edit stands, somebody should know.
  std::vector<error> warnings;
};

// Whether a chain still reads the same if `candidate`, somewhere at or below `top`, is replaced by
// a node with the same content: only filters may lie between (reference section 1.5).
[[nodiscard]] bool can_replace(const node& top, const node& candidate);

// The common edits. Each is one transaction.
task<node*> insert_filter(graph& g, node& below, node_spec filter);
task<void> remove_filter(graph& g, node& filter);
// All that used `from` uses `to` afterwards; `from` stays open.
task<void> replace_node(graph& g, node& from, node& to);
// `to` null: no backing node any more, its place reads as zeroes.
task<void> change_backing(graph& g, node& overlay, node* to);

} // namespace bgfs
