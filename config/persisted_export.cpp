// SPDX-License-Identifier: MIT
#include "config/persisted_export.h"

#include "config/document_values.h"
#include "config/reload_request.h"
#include "config/whole_file.h"
#include "config/yaml.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <fnmatch.h>
#include <sys/file.h>
#include <unistd.h>

namespace bgfs {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view suffix = ".yaml";

bool exists(const std::string& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

std::string removed_name(const std::string& path) {
  const fs::path place(path);
  return (place.parent_path() / ("." + place.filename().string() + ".removed")).string();
}

// Names of roots may hold what a pattern means something else by, but no '/'.
bool matches(const std::string& pattern, const std::string& name) {
  return ::fnmatch(pattern.c_str(), name.c_str(), FNM_PERIOD) == 0;
}

bool has_wildcard(const std::string& text) {
  return text.find_first_of("*?[") != std::string::npos;
}

result<> unchanged(const error& why) {
  const std::string& text = why.message();
  return fail(error{why.kind(),
                    text.ends_with("nothing was changed") ? text : text + "; nothing was changed",
                    why.os_error()});
}

} // namespace

// The lock, and what it protects: the note of what is under way.
class persisted_exports::turn {
public:
  static result<turn> take(const std::string& graph) {
    const std::string path = graph + ".lock";
    owned_fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (!fd.is_open())
      return fail_errno(errno, "cannot open the lock file '{}'", path);
    int locked = 0;
    do {
      locked = ::flock(fd.get(), LOCK_EX);
    } while (locked != 0 && errno == EINTR);
    if (locked != 0)
      return fail_errno(errno, "cannot lock '{}'", path);
    return turn(std::move(fd), path);
  }

  [[nodiscard]] result<std::string> intent() const { return read_whole_file(path_); }

  // Written in place: the file is the lock. One line that has no end was not written whole, and
  // then nothing else was done either.
  [[nodiscard]] result<> note(const std::string& what) const {
    const std::string line = what.empty() ? what : what + "\n";
    const auto length = static_cast<ssize_t>(line.size());
    if (::ftruncate(fd_.get(), 0) != 0 ||
        ::pwrite(fd_.get(), line.data(), line.size(), 0) != length || ::fsync(fd_.get()) != 0)
      return fail_errno(errno, "cannot write to '{}'", path_);
    return {};
  }

private:
  turn(owned_fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  owned_fd fd_;
  std::string path_;
};

result<persisted_exports> persisted_exports::of(const mount_client& mount) {
  if (mount.is_one_file())
    return fail(error_kind::unsupported,
                "'{}' is a mount of one file, which shows one root and no other; exports are added "
                "where a graph is mounted on a directory",
                mount.directory());
  BGFS_TRY(std::string graph, graph_source(mount));
  const bool is_graph = read_yaml(graph).has_value();
  if (!exists(graph))
    return fail(error_kind::not_found, "the graph file '{}' of '{}' cannot be seen from here",
                graph, mount.directory());
  if (!is_graph)
    return fail(error_kind::unsupported,
                "'{}' shows '{}', which is no graph file that can be read; exports are added to "
                "graphs",
                mount.directory(), graph);
  return persisted_exports(mount, std::move(graph));
}

result<std::string> persisted_exports::place_of(const std::string& name) const {
  const std::string file = name + std::string(suffix);
  BGFS_TRY(const value whole, read_yaml(graph_));
  BGFS_TRY(const std::vector<std::string> patterns, read_texts(whole, "include"));
  for (const std::string& given : patterns) {
    const fs::path pattern = absolute_in(fs::path(graph_).parent_path().string(), given);
    if (has_wildcard(pattern.parent_path().string()) || !matches(pattern.filename(), file))
      continue;
    std::error_code problem;
    fs::create_directory(pattern.parent_path(), problem);
    return (pattern.parent_path() / file).string();
  }
  return fail(
      error_kind::invalid_argument,
      "'{}' includes no pattern that '{}' matches, so there is no place to keep the export; "
      "add the line 'include: [conf.d/*.yaml]' to it",
      graph_, file);
}

namespace {

// The roots of a fragment; of one that cannot be read, the root it is named for.
std::vector<std::string> roots_of(const std::string& fragment_path, std::string name) {
  std::vector<std::string> names;
  const result<value> whole = read_yaml(fragment_path);
  const value* const exports = whole ? whole->find("exports") : nullptr;
  if (exports != nullptr && exports->as_list() != nullptr)
    for (const value& root : *exports->as_list())
      if (const value* found = root.find("name"); found != nullptr && found->as_text() != nullptr)
        names.push_back(*found->as_text());
  if (names.empty())
    names.push_back(std::move(name));
  return names;
}

// A root that has failed may be one whose fragment was refused.
bool is_usable_root(const value& root, const std::string& name) {
  const value* const found = root.find("name");
  const value* const state = root.find("state");
  return found != nullptr && found->as_text() != nullptr && *found->as_text() == name &&
         state != nullptr && state->as_text() != nullptr && *state->as_text() != "failed";
}

} // namespace

result<bool> persisted_exports::serves(const std::string& path) const {
  const std::string there = exists(path) ? path : removed_name(path);
  BGFS_TRY(const std::string text, mount_.read(".bgfs/graph.json"));
  BGFS_TRY(const value graph, parse_json(text));
  const value* const exports = graph.find("exports");
  if (exports == nullptr || exports->as_list() == nullptr)
    return false;
  return std::ranges::all_of(
      roots_of(there, fs::path(path).stem().string()), [&](const std::string& name) {
        return std::ranges::any_of(*exports->as_list(),
                                   [&](const value& root) { return is_usable_root(root, name); });
      });
}

// A caller before us was killed. Whether its reload came to pass is what the mount shows.
result<> persisted_exports::finish_what_was_left(turn& mine) const {
  BGFS_TRY(const std::string intent, mine.intent());
  if (!intent.ends_with('\n')) // nothing, or not written whole: nothing else was done
    return mine.note("");
  const std::string line = intent.substr(0, intent.size() - 1);
  const std::size_t blank = line.find(' ');
  const std::string path = line.substr(std::min(line.size(), blank + 1));
  const bool is_adding = line.starts_with("add ");
  BGFS_TRY(const bool is_served, serves(path));
  if (is_adding) {
    // Hidden, not deleted: should somebody have written it by hand since, it is still there.
    if (!is_served && exists(path))
      BGFS_CHECK(rename_file(path, removed_name(path)));
  } else if (const std::string kept = removed_name(path);
             line.starts_with("remove ") && exists(kept)) {
    if (is_served) {
      BGFS_CHECK(rename_file(kept, path));
    } else {
      BGFS_CHECK(remove_file(kept));
    }
  }
  return mine.note("");
}

result<> persisted_exports::add(const std::string& name, const std::string& fragment) const {
  BGFS_TRY(turn mine, turn::take(graph_));
  result<> done = finish_what_was_left(mine);
  if (done)
    done = add_in_turn(mine, name, fragment);
  return done ? done : unchanged(done.error());
}

result<> persisted_exports::add_in_turn(turn& mine, const std::string& name,
                                        const std::string& fragment) const {
  BGFS_TRY(const std::string path, place_of(name));
  if (exists(path))
    return fail(error_kind::busy,
                "there is a fragment '{}' already; remove it with 'bgfs export "
                "remove' first",
                path);
  BGFS_CHECK(mine.note("add " + path));
  result<> applied = replace_file(path, fragment);
  if (applied)
    applied = request_reload(mount_, "1");
  if (!applied && exists(path))
    if (const result<> undone = remove_file(path); !undone)
      return fail(applied.error().kind(), "{}; and {}", applied.error().message(),
                  undone.error().message());
  (void)mine.note(""); // or the next caller finds that nothing is left to do
  return applied;
}

result<> persisted_exports::remove(const std::string& name) const {
  BGFS_TRY(turn mine, turn::take(graph_));
  result<> done = finish_what_was_left(mine);
  if (done)
    done = remove_in_turn(mine, name);
  return done ? done : unchanged(done.error());
}

result<> persisted_exports::remove_in_turn(turn& mine, const std::string& name) const {
  BGFS_TRY(const std::string path, place_of(name));
  if (!exists(path))
    return fail(
        error_kind::not_found,
        "there is no fragment '{}'; an export that is written in '{}' is removed there, and "
        "the graph reloaded",
        path, graph_);
  const std::string kept = removed_name(path);
  BGFS_CHECK(mine.note("remove " + path));
  result<> applied = rename_file(path, kept);
  if (applied)
    applied = request_reload(mount_, "1");
  if (!applied && exists(kept)) {
    if (const result<> undone = rename_file(kept, path); !undone)
      return fail(applied.error().kind(), "{}; and {}", applied.error().message(),
                  undone.error().message());
  } else if (applied) {
    (void)remove_file(kept); // it is hidden, and in nobody's way
  }
  (void)mine.note("");
  return applied;
}

} // namespace bgfs
