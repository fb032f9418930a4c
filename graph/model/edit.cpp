// SPDX-License-Identifier: MIT
#include "graph/model/edit.h"

#include "graph/io/with.h"
#include "graph/model/transaction.h"

#include <algorithm>

namespace bgfs {
namespace {

task<edit_outcome> carry_out(graph_transaction& t) {
  result<> prepared = co_await as_result(t.prepare());
  if (!prepared) {
    co_await t.roll_back();
    co_await fail(std::move(prepared).error());
  }
  t.commit();
  edit_outcome outcome = co_await t.finish();
  co_return outcome;
}

// What has begun is carried to its end, or back.
task<edit_outcome> carry_out_shielded(graph_transaction& t) {
  edit_outcome outcome = co_await shielded(carry_out(t));
  co_return outcome;
}

} // namespace

task<edit_outcome> graph::apply(graph_edit edit) {
  const async_mutex::guard editing = co_await edits_.lock();
  std::vector<node*> affected = edit.leaving;
  for (const reopen_step& s : edit.reopens)
    affected.push_back(s.target);
  for (const child_step& s : edit.children)
    affected.push_back(s.parent);
  for (const replace_step& s : edit.replaces)
    affected.push_back(s.from);
  std::vector<root*> roots = edit.releases;
  for (const root_step& s : edit.roots)
    roots.push_back(s.which);
  graph_transaction t(*this, std::move(edit));
  co_await t.check();
  edit_outcome outcome = co_await with(drain(std::move(affected), std::move(roots)),
                                       [&](drained&) { return carry_out_shielded(t); });
  co_return outcome;
}

bool can_replace(const node& top, const node& candidate) {
  const node* n = &top;
  while (n != &candidate) {
    if (!n->is_filter() || n->filtered_child() == nullptr)
      return false;
    n = &n->filtered_child()->child();
  }
  return true;
}

task<node*> insert_filter(graph& g, node& below, node_spec filter) {
  if (filter.node_name.empty())
    filter.node_name = g.make_auto_name();
  const std::string name = filter.node_name;
  graph_edit edit;
  edit.replaces.push_back({&below, name});
  edit.opens.push_back(std::move(filter));
  (void)co_await g.apply(std::move(edit));
  co_return g.find(name);
}

task<void> remove_filter(graph& g, node& filter) {
  const edge* const below = filter.filtered_child();
  if (!filter.is_filter() || below == nullptr)
    co_await fail(error_kind::invalid_argument, "{} is no filter: what it shows would change",
                  filter.describe());
  graph_edit edit;
  edit.replaces.push_back({&filter, below->child().name()});
  edit.leaving.push_back(&filter);
  (void)co_await g.apply(std::move(edit));
}

task<void> replace_node(graph& g, node& from, node& to) {
  graph_edit edit;
  edit.replaces.push_back({&from, to.name()});
  (void)co_await g.apply(std::move(edit));
}

task<void> change_backing(graph& g, node& overlay, node* to) {
  graph_edit edit;
  edit.children.push_back({&overlay, "backing", to == nullptr ? std::string() : to->name()});
  (void)co_await g.apply(std::move(edit));
}

} // namespace bgfs
