// SPDX-License-Identifier: MIT
#include "config/graph_config.h"

#include <algorithm>

namespace bgfs {

namespace {

constexpr permission_set readers_share = permission::consistent_read | permission::write_unchanged;

task<node*> open_in_order(graph& into, const graph_config& config, const export_spec& root,
                          std::vector<node*>& opened) {
  node* top = nullptr;
  for (const std::string& name : config.opening_order(root.node_name)) {
    top = into.find(name);
    if (top != nullptr)
      continue; // another root has opened it
    node_spec spec = co_await config.make_node_spec(name);
    spec.references = &config.references(root);
    top = co_await into.open(std::move(spec));
    opened.push_back(top);
  }
  if (top == nullptr)
    co_return fail(error_kind::not_found, "there is no node '{}'", root.node_name);
  co_return top;
}

} // namespace

task<node*> open_export(graph& into, const graph_config& config, const export_spec& root) {
  if (const error* why = config.failure_of(root))
    co_return fail(*why);
  std::vector<node*> opened;
  result<node*> top = co_await as_result(open_in_order(into, config, root, opened));
  if (top)
    co_return *top;
  while (!opened.empty()) {
    // Another root may have come to use it meanwhile; then it stays.
    if (opened.back()->parents().empty()) {
      result<> closed = co_await as_result(into.close(*opened.back()));
      (void)closed; // the first error is the one to report
    }
    opened.pop_back();
  }
  co_return fail(std::move(top).error());
}

permissions permissions_of(const export_spec& root, const graph_config& config) {
  permissions wanted{permission::consistent_read, readers_share};
  if (root.is_writable)
    wanted.used |= permission::write | permission::resize;
  if (config.is_shared(root))
    wanted.shared = permission::all;
  return wanted;
}

} // namespace bgfs
