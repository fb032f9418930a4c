// SPDX-License-Identifier: MIT
#include "config/graph_state.h"

#include "config/document_values.h"
#include "config/graph_document.h"
#include "config/yaml.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

namespace bgfs {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view heading =
    "# What changed at run time in the graph file beside this one; in "
    "force whenever that is read. Keep\n"
    "# the two together: the graph file alone may name images that "
    "others stand on, and would write\n"
    "# to them. To do without this file, put into the graph file "
    "what it says, and then remove it.\n";

constexpr std::string_view state_keys[] = {"version", "nodes", "backing", "exports", "snapshots"};

result<> check_keys(const value& whole) {
  for (const auto& [key, v] : *whole.as_map())
    if (std::ranges::find(state_keys, key) == std::end(state_keys))
      return wrong(v.mark,
                   "the key '{}' is not known in a state file; there are version, nodes, "
                   "backing, exports and snapshots",
                   key);
  const value* const version = whole.find("version");
  if (version == nullptr || version->as_integer() == nullptr || *version->as_integer() != 1)
    return wrong(version == nullptr ? whole.mark : version->mark,
                 "a state file has 'version: 1'; this one was written by another program");
  return {};
}

// The map under a key; null if it is absent.
result<const value::map*> find_map(const value& whole, std::string_view key) {
  const value* const v = whole.find(key);
  if (v == nullptr || v->is_null())
    return nullptr;
  if (v->as_map() == nullptr)
    return wrong(v->mark, "'{}' is a map of names, not {}", key, v->kind_name());
  return v->as_map();
}

result<external_snapshot> read_snapshot(const value& item) {
  external_snapshot s;
  for (const auto& [key, text] : {std::pair("id", &s.id), {"name", &s.name}, {"node", &s.node}}) {
    const value* const v = item.as_map() == nullptr ? nullptr : item.find(key);
    if (v == nullptr || v->as_text() == nullptr)
      return wrong(item.mark, "a snapshot has an id, a name and a node, which are texts");
    *text = *v->as_text();
  }
  i64 length = -1;
  for (const auto& [key, number] : {std::pair("length", &length),
                                    {"date-sec", &s.date_seconds},
                                    {"date-nsec", &s.date_nanoseconds}}) {
    const value* const v = item.find(key);
    if (v == nullptr || v->as_integer() == nullptr || *v->as_integer() < 0)
      return wrong(
          item.mark,
          "a snapshot has a length and a date, 'date-sec' and 'date-nsec', numbers from 0");
    *number = *v->as_integer();
  }
  s.length = static_cast<u64>(length);
  return s;
}

result<> read_snapshots(const value& whole, graph_state& state) {
  BGFS_TRY(const value::map* snapshots, find_map(whole, "snapshots"));
  if (snapshots == nullptr)
    return {};
  for (const auto& [root, list] : *snapshots) {
    if (list.as_list() == nullptr)
      return wrong(list.mark, "the snapshots of '{}' are a list, not {}", root, list.kind_name());
    for (const value& item : *list.as_list()) {
      BGFS_TRY(external_snapshot s, read_snapshot(item));
      state.snapshots[root].push_back(std::move(s));
    }
  }
  return {};
}

result<> read_names(const value& whole, graph_state& state) {
  BGFS_TRY(const value::map* backing, find_map(whole, "backing"));
  if (backing != nullptr)
    for (const auto& [name, v] : *backing) {
      if (!v.is_null() && v.as_text() == nullptr)
        return wrong(v.mark, "the backing of '{}' is a node's name or null, not {}", name,
                     v.kind_name());
      state.backing[name] = v.is_null() ? std::nullopt : std::optional(*v.as_text());
    }
  BGFS_TRY(const value::map* exports, find_map(whole, "exports"));
  if (exports != nullptr)
    for (const auto& [name, v] : *exports) {
      if (v.as_text() == nullptr)
        return wrong(v.mark, "the root '{}' shows a node, which has a name; this is {}", name,
                     v.kind_name());
      state.exports[name] = *v.as_text();
    }
  return {};
}

value to_value(const graph_state& state) {
  value whole = value::map();
  whole.set("version", 1);
  if (!state.nodes.empty())
    whole.set("nodes", state.nodes);
  if (!state.backing.empty()) {
    value backing = value::map();
    for (const auto& [name, to] : state.backing)
      backing.set(name, to ? value(*to) : value());
    whole.set("backing", std::move(backing));
  }
  if (!state.exports.empty()) {
    value exports = value::map();
    for (const auto& [name, to] : state.exports)
      exports.set(name, to);
    whole.set("exports", std::move(exports));
  }
  if (!state.snapshots.empty()) {
    value snapshots = value::map();
    for (const auto& [root, all] : state.snapshots) {
      value::list list;
      for (const external_snapshot& s : all) {
        value item = value::map();
        item.set("id", s.id);
        item.set("name", s.name);
        item.set("node", s.node);
        item.set("length", s.length);
        item.set("date-sec", s.date_seconds);
        item.set("date-nsec", s.date_nanoseconds);
        list.push_back(std::move(item));
      }
      snapshots.set(root, std::move(list));
    }
    whole.set("snapshots", std::move(snapshots));
  }
  return whole;
}

// Open for as long as it lives.
struct closing_fd {
  int fd;
  ~closing_fd() {
    if (fd >= 0)
      ::close(fd);
  }
};

result<> write_durably(const std::string& path, std::string_view text) {
  const closing_fd file{
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644)};
  if (file.fd < 0)
    return fail_errno(errno, "cannot write '{}'", path);
  while (!text.empty()) {
    const ssize_t count = ::write(file.fd, text.data(), text.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return fail_errno(errno, "cannot write '{}'", path);
    text.remove_prefix(static_cast<std::size_t>(count));
  }
  if (::fsync(file.fd) != 0)
    return fail_errno(errno, "cannot make '{}' durable", path);
  return {};
}

result<> sync_directory(const std::string& path) {
  const closing_fd directory{::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (directory.fd < 0 || ::fsync(directory.fd) != 0)
    return fail_errno(errno, "cannot make changes in '{}' durable", path);
  return {};
}

// What a mismatch of state and graph file means, and what to do.
template<class... Args>
std::unexpected<error> stale(const graph_state& state, fmt::format_string<Args...> format,
                             Args&&... args) {
  return fail(error_kind::invalid_argument,
              "{}: {}; put into the graph file what is true now, and remove this file", state.path,
              fmt::format(format, std::forward<Args>(args)...));
}

class state_applier {
public:
  state_applier(const graph_state& state, graph_documents& documents, const registry& drivers)
      : state_(state), documents_(documents), drivers_(drivers) {}

  result<> run() {
    BGFS_CHECK(add_nodes());
    for (const auto& [name, to] : state_.backing)
      BGFS_CHECK(set_backing(name, to));
    for (const auto& [name, to] : state_.exports)
      BGFS_CHECK(set_export(name, to));
    for (const auto& [root, all] : state_.snapshots)
      for (const external_snapshot& s : all)
        BGFS_CHECK(check_below(fmt::format("snapshot '{}' of root '{}'", s.name, root), s.node));
    return {};
  }

private:
  result<> add_nodes() {
    graph_document& graph = documents_.all.front();
    const definition_rules rules{.drivers = drivers_,
                                 .directory = fs::path(state_.path).parent_path().string()};
    for (const value& item : state_.nodes) {
      BGFS_TRY(std::unique_ptr<node_definition> d, define_node(item, rules));
      if (d->node_name.empty())
        return wrong(item.mark, "a node of a state file needs a 'node-name'");
      graph.nodes.push_back(std::move(d));
    }
    return {};
  }

  // Null: there is none, or it is in a fragment that is wrong.
  node_definition* find(std::string_view name) {
    node_definition* found = nullptr;
    for (graph_document& document : documents_.all)
      for (auto& top : document.nodes)
        for_each_definition(*top, [&](const node_definition& d) {
          if (d.node_name == name)
            found = const_cast<node_definition*>(&d); // the documents are ours to change
        });
    return found;
  }

  [[nodiscard]] bool is_lost(std::string_view name) const {
    return std::ranges::any_of(documents_.all, [&](const graph_document& d) {
      return std::ranges::find(d.lost_nodes, name) != d.lost_nodes.end();
    });
  }

  source_mark place() const { return {std::make_shared<const std::string>(state_.path)}; }

  result<> set_backing(const std::string& name, const std::optional<std::string>& to) {
    node_definition* const overlay = find(name);
    if (overlay == nullptr && is_lost(name))
      return {};
    if (overlay == nullptr)
      return stale(state_, "it says what lies below node '{}', and the graph has no such node",
                   name);
    const auto slot = std::ranges::find_if(overlay->type->children, [](const child_slot& s) {
      return (s.roles & role::backing) != 0;
    });
    if (slot == overlay->type->children.end())
      return stale(state_, "it gives node '{}' a backing node, which driver '{}' cannot have", name,
                   overlay->type->name);
    std::erase_if(overlay->children,
                  [&](const node_definition::child& c) { return c.slot->name == slot->name; });
    overlay->has_no_backing = !to.has_value();
    if (!to)
      return {};
    overlay->children.push_back({&*slot, *to, place()});
    return check_below(fmt::format("'{}'", name), *to);
  }

  // What an overlay relies on must not change under it, whoever opens it.
  result<> check_below(const std::string& overlay, const std::string& name) {
    const node_definition* const below = find(name);
    if (below == nullptr && is_lost(name))
      return {};
    if (below == nullptr)
      return stale(state_, "it says that node '{}' lies below {}, and the graph has no such node",
                   name, overlay);
    if (below->given.is_set("read-only") && !below->given.flag("read-only"))
      return fail(error_kind::invalid_argument,
                  "{}node '{}' is 'read-only: false', but it became the backing of {} at run "
                  "time (see {}): a write to it would change what {} shows; take 'read-only: "
                  "false' away",
                  below->mark.prefix(), name, overlay, state_.path, overlay);
    return {};
  }

  result<> set_export(const std::string& name, const std::string& to) {
    for (graph_document& document : documents_.all) {
      for (parsed_export& e : document.exports)
        if (e.root.name == name) {
          e.root.node_name = to;
          return {};
        }
      for (const export_spec& lost : document.lost_exports)
        if (lost.name == name)
          return {};
    }
    return stale(state_, "it says what root '{}' shows, and the graph has no such export", name);
  }

  const graph_state& state_;
  graph_documents& documents_;
  const registry& drivers_;
};

} // namespace

std::string state_path_of(const std::string& graph_path) {
  return fs::absolute(graph_path).lexically_normal().string() + ".state";
}

result<graph_state> read_graph_state(const std::string& graph_path) {
  graph_state state;
  state.path = state_path_of(graph_path);
  std::error_code problem;
  if (!fs::exists(state.path, problem) && !problem)
    return state;
  BGFS_TRY(const value whole, read_yaml(state.path));
  if (whole.as_map() == nullptr)
    return wrong(whole.mark, "a state file is a map that begins with 'version: 1', not {}",
                 whole.kind_name());
  BGFS_CHECK(check_keys(whole));
  BGFS_TRY(const value::list* nodes, find_list(whole, "nodes"));
  if (nodes != nullptr)
    state.nodes = *nodes;
  BGFS_CHECK(read_names(whole, state));
  BGFS_CHECK(read_snapshots(whole, state));
  return state;
}

// The new text is durable under another name before it takes the place of the old one: whenever we
// stop, one of the two is there, whole.
result<> write_graph_state(const graph_state& state) {
  const std::string directory = fs::path(state.path).parent_path().string();
  if (state.is_empty()) {
    if (::unlink(state.path.c_str()) != 0 && errno != ENOENT)
      return fail_errno(errno, "cannot remove '{}'", state.path);
    return sync_directory(directory);
  }
  const std::string temporary = state.path + ".new";
  const std::string text = std::string(heading) + to_json(to_value(state), 2) + "\n";
  if (result<> written = write_durably(temporary, text); !written) {
    (void)::unlink(temporary.c_str());
    return written;
  }
  if (::rename(temporary.c_str(), state.path.c_str()) != 0)
    return fail_errno(errno, "cannot replace '{}'", state.path);
  return sync_directory(directory);
}

result<> apply_graph_state(const graph_state& state, graph_documents& documents,
                           const registry& drivers) {
  return state_applier(state, documents, drivers).run();
}

} // namespace bgfs
