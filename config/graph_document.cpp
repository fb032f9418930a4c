// SPDX-License-Identifier: MIT
#include "config/graph_document.h"

#include "config/document_values.h"
#include "config/policy_schema.h"
#include "config/yaml.h"
#include "graph/base/text.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <glob.h>

namespace bgfs {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view graph_keys[] = {"version",         "include", "references", "secrets",
                                           "throttle-groups", "nodes",   "exports"};
constexpr std::string_view fragment_keys[] = {"version", "nodes", "exports"};

result<> check_keys(const value& whole, bool is_fragment) {
  const std::span<const std::string_view> known =
      is_fragment ? std::span<const std::string_view>(fragment_keys) : graph_keys;
  for (const auto& [key, v] : *whole.as_map()) {
    if (std::ranges::find(known, key) != known.end())
      continue;
    if (std::ranges::find(graph_keys, key) != std::end(graph_keys))
      return wrong(v.mark, "'{}' belongs into the graph file, not into a fragment", key);
    std::string hint = did_you_mean(key, known);
    if (hint.empty())
      hint = fmt::format("; there are {}", fmt::join(known, ", "));
    return wrong(v.mark, "the key '{}' is not known{}", key, hint);
  }
  return {};
}

result<> check_version(const value& whole, bool is_fragment) {
  const value* version = whole.find("version");
  if (version == nullptr && is_fragment)
    return {};
  if (version == nullptr)
    return wrong(whole.mark, "'version: 1' is missing");
  const i64* number = version->as_integer();
  if (number == nullptr)
    return wrong(version->mark, "'version' is the number 1, not {}", version->kind_name());
  if (*number != 1)
    return wrong(version->mark, "'version' is {}; this program knows version 1", *number);
  return {};
}

result<> check_later_features(const value& whole) {
  for (const std::string_view key : {"throttle-groups"}) {
    const value* v = whole.find(key);
    const bool is_empty =
        v == nullptr || v->is_null() || (v->as_list() != nullptr && v->as_list()->empty());
    if (!is_empty)
      return wrong(v->mark, "'{}' is not supported yet; leave it out", key);
  }
  return {};
}

class document_reader {
public:
  document_reader(std::string path, bool is_fragment, const registry& drivers) : drivers_(drivers) {
    made_.path = std::move(path);
    made_.is_fragment = is_fragment;
  }

  // `shown`: the name that messages use.
  result<value> read_whole(const std::string& shown) {
    result<value> whole = read_yaml(shown);
    if (!whole)
      return whole;
    if (whole->is_null())
      return wrong({std::make_shared<const std::string>(shown)},
                   "the file is empty; a graph begins with 'version: 1'");
    if (whole->as_map() == nullptr)
      return wrong(whole->mark, "a graph is a map that begins with 'version: 1', not {}",
                   whole->kind_name());
    return whole;
  }

  result<> read(const value& whole) {
    BGFS_CHECK(check_keys(whole, made_.is_fragment));
    BGFS_CHECK(check_version(whole, made_.is_fragment));
    BGFS_CHECK(check_later_features(whole));
    BGFS_CHECK(read_nodes(whole));
    return read_exports(whole);
  }

  // What a wrong fragment would have defined.
  void salvage(const value& whole) {
    const value* nodes = whole.find("nodes");
    if (nodes != nullptr && nodes->as_list() != nullptr)
      for (const value& node : *nodes->as_list())
        if (const value* name = node.find("node-name");
            name != nullptr && name->as_text() != nullptr)
          made_.lost_nodes.push_back(*name->as_text());
    const value* exports = whole.find("exports");
    if (exports == nullptr || exports->as_list() == nullptr)
      return;
    for (const value& root : *exports->as_list())
      salvage_export(root);
  }

  graph_document take() { return std::move(made_); }
  graph_document& made() { return made_; }

private:
  result<> read_nodes(const value& whole) {
    BGFS_TRY(const value::list* list, find_list(whole, "nodes"));
    if (list == nullptr)
      return {};
    const definition_rules rules{.drivers = drivers_,
                                 .directory = fs::path(made_.path).parent_path().string()};
    for (const value& item : *list) {
      BGFS_TRY(std::unique_ptr<node_definition> d, define_node(item, rules));
      if (d->node_name.empty())
        return wrong(item.mark, "a node of the graph needs a 'node-name'");
      made_.nodes.push_back(std::move(d));
    }
    return {};
  }

  result<> read_exports(const value& whole) {
    BGFS_TRY(const value::list* list, find_list(whole, "exports"));
    made_.has_exports = whole.find("exports") != nullptr;
    if (list == nullptr)
      return {};
    const std::string directory = fs::path(made_.path).parent_path().string();
    for (const value& item : *list) {
      if (item.as_map() == nullptr)
        return wrong(item.mark, "an export is a map such as {{name: ..., node-name: ...}}, not {}",
                     item.kind_name());
      BGFS_TRY(parsed_export e, parse_export(item, directory));
      made_.exports.push_back(std::move(e));
    }
    return {};
  }

  void salvage_export(const value& root) {
    const value* name = root.find("name");
    if (name == nullptr)
      name = root.find("node-name");
    if (name == nullptr || name->as_text() == nullptr || !check_root_name(*name->as_text()))
      return;
    export_spec lost;
    lost.name = *name->as_text();
    if (const value* node = root.find("node-name"); node != nullptr && node->as_text() != nullptr)
      lost.node_name = *node->as_text();
    const value* required = root.find("required");
    lost.is_required =
        required != nullptr && required->as_bool() != nullptr && *required->as_bool();
    lost.mark = root.mark;
    made_.lost_exports.push_back(std::move(lost));
  }

  const registry& drivers_;
  graph_document made_;
};

// The files a pattern names, in order; a name without wildcards names itself.
std::vector<std::string> expand(const std::string& pattern) {
  std::vector<std::string> paths;
  glob_t found{};
  if (::glob(pattern.c_str(), GLOB_NOCHECK, nullptr, &found) == 0)
    paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  const bool is_pattern = pattern.find_first_of("*?[") != std::string::npos;
  if (is_pattern && paths.size() == 1 && paths[0] == pattern)
    paths.clear();
  return paths;
}

result<std::vector<std::string>> find_fragments(const value& whole, const std::string& path) {
  BGFS_TRY(const std::vector<std::string> patterns, read_texts(whole, "include"));
  std::vector<std::string> found;
  for (const std::string& pattern : patterns) {
    for (std::string& name : expand(absolute_in(fs::path(path).parent_path().string(), pattern))) {
      std::error_code problem;
      const bool is_itself = fs::equivalent(name, path, problem) && !problem;
      if (!is_itself && std::ranges::find(found, name) == found.end())
        found.push_back(std::move(name));
    }
  }
  if (found.size() > fragments_max)
    return wrong(whole.find("include")->mark, "{} fragments are included; {} are the most",
                 found.size(), fragments_max);
  return found;
}

graph_document read_fragment(const std::string& path, const registry& drivers) {
  document_reader reader(path, true, drivers);
  const result<value> whole = reader.read_whole(path);
  result<> ok;
  if (!whole) {
    ok = fail(whole.error());
  } else {
    ok = reader.read(*whole);
  }
  if (!ok) {
    reader.made().nodes.clear();
    reader.made().exports.clear();
    reader.made().failure = std::move(ok).error();
    if (whole)
      reader.salvage(*whole);
  }
  return reader.take();
}

} // namespace

result<graph_documents> read_graph_documents(const std::string& path, const registry& drivers) {
  const std::string absolute = fs::absolute(path).lexically_normal().string();
  graph_documents documents;
  document_reader reader(absolute, false, drivers);
  BGFS_TRY(value whole, reader.read_whole(path));
  BGFS_CHECK(reader.read(whole));
  documents.all.push_back(reader.take());
  BGFS_TRY(documents.policy, parse_reference_policy(whole, path));
  BGFS_TRY(documents.secrets, parse_secrets(whole, fs::path(absolute).parent_path().string()));
  BGFS_TRY(const std::vector<std::string> fragments, find_fragments(whole, absolute));
  for (const std::string& fragment : fragments)
    documents.all.push_back(read_fragment(fragment, drivers));
  return documents;
}

void lose(graph_document& fragment, error why) {
  fragment.failure = std::move(why);
  for (const auto& d : fragment.nodes)
    for_each_definition(*d, [&](const node_definition& each) {
      if (!each.node_name.empty())
        fragment.lost_nodes.push_back(each.node_name);
    });
  for (parsed_export& e : fragment.exports)
    fragment.lost_exports.push_back(std::move(e.root));
  fragment.nodes.clear();
  fragment.exports.clear();
}

} // namespace bgfs
