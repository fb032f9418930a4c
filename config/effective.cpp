// SPDX-License-Identifier: MIT
// The effective configuration as a graph file would say it, defaults included.
#include "config/graph_content.h"

#include <algorithm>

namespace bgfs {

namespace {

void add_generic(value& v, const node_options& o) {
  v.set("read-only", o.is_read_only);
  v.set("auto-read-only", o.is_auto_read_only);
  v.set("force-share", o.force_share);
  v.set("discard", o.discard == discard_mode::unmap ? "unmap" : "ignore");
  v.set("detect-zeroes", o.detect_zeroes == detect_zeroes_mode::off  ? "off"
                         : o.detect_zeroes == detect_zeroes_mode::on ? "on"
                                                                     : "unmap");
  value cache = value::map();
  cache.set("direct", o.cache_direct);
  cache.set("no-flush", o.cache_no_flush);
  cache.set("writeback", o.cache_writeback);
  v.set("cache", std::move(cache));
}

// Options of every node are written with what they come to, which may be inherited.
bool is_generic(std::string_view name) {
  return std::ranges::any_of(generic_node_schema.options, [&](const option& o) {
    return o.name.substr(0, o.name.find('.')) == name;
  });
}

value write_definition(const node_definition& d, const spec_context& context) {
  value v = value::map();
  if (!d.node_name.empty())
    v.set("node-name", d.node_name);
  v.set("driver", d.type->name);
  const value effective = d.given.effective();
  for (const auto& [name, given] : *effective.as_map())
    if (!is_generic(name))
      v.set(name, given);
  add_generic(v, effective_options(d, context));
  for (const node_definition::child& child : d.children) {
    const auto* below = std::get_if<std::unique_ptr<node_definition>>(&child.target);
    v.set(std::string(child.slot->name), below == nullptr
                                             ? value(std::get<std::string>(child.target))
                                             : write_definition(**below, context));
  }
  if (d.has_no_backing)
    v.set("backing", value());
  return v;
}

value write_references(const reference_policy& policy) {
  value v = value::map();
  value::list allowed;
  for (const std::string& directory : policy.allowed)
    allowed.emplace_back(directory);
  v.set("allow", std::move(allowed));
  v.set("probe", policy.is_probing);
  if (!policy.rewrites.empty()) {
    value rewrites = value::map();
    for (const auto& [from, to] : policy.rewrites)
      rewrites.set(from, to);
    v.set("rewrite", std::move(rewrites));
  }
  return v;
}

} // namespace

value graph_config::effective() const {
  const spec_context context = content_->context();
  value::list nodes;
  for (const graph_document& document : content_->documents)
    for (const auto& d : document.nodes)
      nodes.push_back(write_definition(*d, context));
  value::list exports;
  for (const export_spec& root : content_->exports)
    exports.push_back(write_export(root));
  value whole = value::map();
  whole.set("version", 1);
  whole.set("references", write_references(content_->policy));
  if (!content_->secret_sources.empty()) {
    value::list secrets;
    for (const secret_source& s : content_->secret_sources)
      secrets.push_back(s.given.given());
    whole.set("secrets", std::move(secrets));
  }
  whole.set("nodes", std::move(nodes));
  whole.set("exports", std::move(exports));
  return whole;
}

} // namespace bgfs
