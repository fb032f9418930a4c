// SPDX-License-Identifier: MIT
// .bgfs/graph.yaml, graph.json, graph.dot: the effective configuration, and the graph that is open.
#include "config/graph_picture.h"
#include "fuse/views/common.h"
#include "fuse/views/yaml_text.h"

#include <algorithm>

namespace bgfs {
namespace {

task<std::string> render_yaml(view_subject subject) {
  const graph_config& config = subject.mount.config();
  co_return "# read from " + config.source() + "\n" + to_yaml(config.effective());
}

value describe_node(const node& n) {
  value v;
  v.set("node-name", n.name());
  v.set("driver", n.type().name);
  v.set("read-only", n.is_read_only());
  v.set("virtual-size", n.length());
  const std::string path = n.instance().host_path();
  if (!path.empty())
    v.set("filename", path);
  v.set("permissions", describe(n.cumulative_permissions().used));
  value children(value::map{});
  for (const auto& e : n.children())
    children.set(e->name(), e->child().name());
  v.set("children", std::move(children));
  return v;
}

task<value> describe_root(exported_root& r) {
  const root_state now = co_await r.state();
  value v;
  v.set("name", r.name());
  // What it is over now: points put their filters there.
  const root* const attached = r.attached();
  v.set("node-name", attached != nullptr ? attached->top().name() : r.spec().node_name);
  v.set("writable", r.is_writable());
  v.set("state", now.word);
  if (!r.spec().iothread.empty())
    v.set("iothread", r.spec().iothread);
  co_return v;
}

std::string dot_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out + '"';
}

} // namespace

task<value> describe_graph(mount_state& mount) {
  value::list nodes;
  co_await mount.look_at_graphs([&](const graph& g) {
    for (const auto& n : g.nodes())
      if (n->is_open())
        nodes.push_back(describe_node(*n));
  });
  value::list roots;
  for (const root_pointer& r : std::vector<root_pointer>(mount.roots)) {
    value root = co_await describe_root(*r);
    roots.push_back(std::move(root));
  }
  value v;
  v.set("source", mount.config().source());
  v.set("directory", mount.directory);
  v.set("exports", std::move(roots));
  v.set("nodes", std::move(nodes));
  co_return v;
}

namespace {

task<std::string> render_json(view_subject subject) {
  const value graph = co_await describe_graph(subject.mount);
  co_return json_text(graph);
}

void draw_nodes(const graph& g, std::string& boxes, std::string& arrows) {
  for (const auto& n : g.nodes()) {
    const std::string name = dot_string("node:" + n->name());
    const std::string label = n->name() + " (" + std::string(n->type().name) + ")";
    boxes += fmt::format("  {} [label={}];\n", name, dot_string(label));
    for (const auto& e : n->children())
      arrows += fmt::format("  {} -> {} [label={}];\n", name,
                            dot_string("node:" + e->child().name()), dot_string(e->name()));
  }
}

task<std::string> render_dot(view_subject subject) {
  std::string boxes;
  std::string arrows;
  co_await subject.mount.look_at_graphs([&](const graph& g) { draw_nodes(g, boxes, arrows); });
  for (const root_pointer& r : std::vector<root_pointer>(subject.mount.roots)) {
    const root_state now = co_await r->state();
    const std::string name = dot_string("export:" + r->name());
    const std::string label = r->name() + " (" + std::string(now.word) + ")";
    boxes += fmt::format("  {} [shape=ellipse, label={}];\n", name, dot_string(label));
    if (r->disk() != nullptr)
      boxes += fmt::format("  {} -> {};\n", name, dot_string("node:" + r->disk()->top().name()));
  }
  co_return "digraph bgfs {\n  node [shape=box];\n" + boxes + arrows + "}\n";
}

} // namespace

namespace {

task<std::string> render_svg(view_subject subject) {
  const value graph = co_await describe_graph(subject.mount);
  co_return graph_svg(graph);
}

} // namespace

extern constinit const view graph_yaml_view{
    .name = "graph.yaml",
    .summary = "the effective configuration; the first line says where it was read from",
    .render = render_yaml};
extern constinit const view graph_json_view{
    .name = "graph.json", .summary = "the open graph: exports and nodes", .render = render_json};
extern constinit const view graph_dot_view{
    .name = "graph.dot", .summary = "the same as a picture, for graphviz", .render = render_dot};

extern constinit const view graph_svg_view{
    .name = "graph.svg", .summary = "graph.json as a picture, for a browser", .render = render_svg};

} // namespace bgfs
