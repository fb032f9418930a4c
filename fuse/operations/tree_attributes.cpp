// SPDX-License-Identifier: MIT
// The control directory of a root as attributes of its raw file, for who has nothing but that: a
// container into which one file was bound, a mount of one file. user.bgfs.PATH is what NAME.d/PATH
// says; user.bgfs.mount/PATH, in a mount of one file alone, what .bgfs/PATH says. Setting one is
// writing to it; setting an empty one that is not there makes a directory, removing one removes it.
// Whoever asks needs the same rights on the way as if these were files.
#include "fuse/operations/caller.h"
#include "fuse/operations/operations.h"
#include "fuse/operations/view_commands.h"
#include "fuse/tree/directories.h"
#include "graph/base/text.h"

#include <algorithm>
#include <cerrno>
#include <sys/xattr.h>

namespace bgfs {
namespace {

constexpr std::string_view prefix = "user.bgfs.";
constexpr std::string_view of_mount = "mount";

// "" of "state", "snapshots" of "snapshots/mon/".
struct split_path {
  std::string parent;
  std::string name;
};

split_path split(std::string path) {
  while (path.ends_with('/'))
    path.pop_back();
  const std::size_t at = path.rfind('/');
  if (at == std::string::npos)
    return {.parent = {}, .name = std::move(path)};
  return {.parent = path.substr(0, at), .name = path.substr(at + 1)};
}

std::unexpected<error> denied(const inode& what, std::string_view to) {
  return fail(error{error_kind::permission,
                    fmt::format("'{}' may not be {} by who asks", what.path(), to), EACCES});
}

// Nothing of that name is there, or nothing that could be asked for so.
bool is_missing(const error& e) {
  return e.kind() == error_kind::not_found && (e.os_error() == 0 || e.os_error() == ENODATA);
}

std::string join_names(const std::vector<directory_entry>& entries) {
  std::string text;
  for (const directory_entry& e : entries)
    text += (text.empty() ? "" : "\n") + e.name;
  return text;
}

// Of lines that go on, the last ones that fit.
std::string last_lines(line_ring& ring) {
  std::string text = line_reader(ring).read(0, std::string::npos);
  if (text.size() <= attribute_length_max + 1) // the newline at its end is left out
    return text;
  const std::size_t from = text.find('\n', text.size() - attribute_length_max - 2);
  return text.substr(from + 1);
}

} // namespace

std::optional<std::string> path_in_attribute(std::string_view name) {
  if (!name.starts_with(prefix))
    return std::nullopt;
  return std::string(name.substr(prefix.size()));
}

std::unexpected<error> no_such_attribute(std::string_view name) {
  return fail(
      error{error_kind::not_found, fmt::format("there is no attribute '{}'", name), ENODATA});
}

// The directory that the path begins in, and what is left of it.
result<inode_pin> operations::attribute_root(inode& target, std::string& path) {
  disk_file* const file = target.as_disk();
  exported_root* const root = target.root_of();
  const bool is_raw_file =
      file != nullptr && file->content() == shown_content::live && file->partition_number() == 0;
  if (!is_raw_file)
    return no_such_attribute(path);
  if (root->phase() == root_phase::gone)
    BGFS_CHECK(root->require_medium());
  if (path == of_mount || path.starts_with(std::string(of_mount) + "/")) {
    if (!mount_.is_one_file) // what else is mounted is not for who has one of its files
      return no_such_attribute(path);
    path.erase(0, of_mount.size());
    return inodes_.intern("/.bgfs", make_service_directory(mount_));
  }
  // Without a control directory these alone: they say why the file cannot be used.
  if (root->spec().control == control_mode::none && path != "state" && path != "last-error")
    return no_such_attribute(path);
  return inodes_.intern("/" + root->name() + ".d", make_control_directory(mount_, *root));
}

task<inode_pin> operations::find_by_attribute(fuse_in_header request, std::string path) {
  const inode_pin target = co_await find(request);
  inode_pin at = co_await attribute_root(*target, path);
  std::size_t begin = 0;
  while (begin < path.size()) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string name = path.substr(begin, end - begin);
    begin = end + 1;
    if (name.empty())
      continue;
    directory* const where = at->as_directory();
    if (where == nullptr)
      co_await no_such_attribute(path);
    const attributes a = co_await where->describe();
    if (!may(request, a, file_right::search))
      co_await denied(*where, "searched");
    std::unique_ptr<inode> made = co_await where->find(name);
    at = inodes_.intern(at->path() + "/" + name, std::move(made));
  }
  co_return std::move(at);
}

task<std::string> operations::read_by_attribute(fuse_in_header request, std::string path) {
  result<inode_pin> found = co_await as_result(find_by_attribute(request, path));
  if (!found && is_missing(found.error()))
    co_await no_such_attribute(path);
  const inode_pin target = co_await std::move(found);
  const attributes a = co_await target->describe();
  if (!may(request, a, file_right::read))
    co_await denied(*target, "read");
  if (const link* const l = target->as_link(); l != nullptr)
    co_return l->target();
  if (directory* const where = target->as_directory(); where != nullptr) {
    where->opened_by(request.pid);
    const std::vector<directory_entry> entries = co_await where->list();
    co_return join_names(entries);
  }
  view_file* const file = target->as_view();
  if (file == nullptr || (file->what().render == nullptr && file->what().lines == nullptr))
    co_await no_such_attribute(path); // a disk, or what can only be written
  std::string text;
  if (file->what().lines != nullptr) {
    text = last_lines(file->what().lines(mount_));
  } else {
    if (file->root_of() != nullptr && file->what().needs_medium)
      co_await file->root_of()->open(request.pid);
    const view_subject about = co_await file->subject(request.pid);
    text = co_await render_logged(*file, about);
  }
  if (text.ends_with('\n'))
    text.pop_back();
  co_return text;
}

task<reply> operations::setxattr(fuse_in_header request, ask::setxattr what) {
  const std::optional<std::string> path = path_in_attribute(what.name);
  // The time of its last change is what another mount would keep of a raw file that is its image.
  if (!path || *path == "mtime")
    co_await fail(error_kind::unsupported, "'{}' cannot be set: a disk has no attributes of others",
                  what.name);
  inode_pin found;
  {
    const auto looking = co_await mount_.looking.lock_shared();
    result<inode_pin> there = co_await as_result(find_by_attribute(request, *path));
    if (!there && !is_missing(there.error()))
      co_await fail(std::move(there).error());
    if (there && (*there)->as_view() != nullptr) {
      co_await require_writable_view(request, *(*there)->as_view());
      found = *std::move(there);
    }
  }
  if (!found) {
    if ((what.flags & XATTR_REPLACE) != 0)
      co_await no_such_attribute(what.name);
    co_await make_by_attribute(request, *path, what.value.empty());
    co_return reply();
  }
  if ((what.flags & XATTR_CREATE) != 0)
    co_await fail(
        error{error_kind::busy, fmt::format("attribute '{}' is there", what.name), EEXIST});
  view_file& file = *found->as_view();
  co_await command_logged(request.pid, file, std::move(what.value));
  co_return reply();
}

// As opening it for writing does.
task<void> operations::require_writable_view(fuse_in_header request, view_file& file) {
  const attributes a = co_await file.describe();
  co_await require_commands(request, file, "setxattr");
  if (!may(request, a, file_right::write))
    co_await denied(file, "written");
  if (file.root_of() != nullptr && file.what().needs_medium)
    co_await file.root_of()->open(request.pid);
}

task<void> operations::command_logged(u32 pid, view_file& file, std::string text) {
  const std::span payload = std::as_bytes(std::span(text));
  const result<> outcome = co_await as_result(run_command(file.what(), file.where(), pid, payload));
  co_await mount_.kernel_has_heard();
  if (outcome)
    co_return;
  const std::string verb = verb_of(file.what(), payload);
  file.log().add(pid, verb, outcome.error());
  trace<point::command_fail>(mount_.home.log(), verb, pid, outcome_of(outcome));
  co_await outcome;
}

task<void> operations::make_by_attribute(fuse_in_header request, std::string path, bool is_empty) {
  const split_path where = split(std::move(path));
  if (!is_empty) {
    const inode_pin target = co_await find(request);
    error why(
        error_kind::not_found,
        fmt::format("there is no '{}' that could be written: 'user.bgfs.PATH' is what PATH is "
                    "in NAME.d (see 'user.bgfs.help'); to make a directory there, such as a "
                    "snapshot, set an empty value",
                    where.parent.empty() ? where.name : where.parent + "/" + where.name));
    if (target->root_of() != nullptr)
      target->root_of()->log.add(request.pid, "setxattr", why);
    co_await fail(std::move(why));
  }
  co_await change_directory(request, where.parent, where.name, true);
}

task<reply> operations::removexattr(fuse_in_header request, std::string name) {
  const std::optional<std::string> path = path_in_attribute(name);
  if (!path)
    co_await no_such_attribute(name);
  const split_path where = split(*path);
  const result<> done =
      co_await as_result(change_directory(request, where.parent, where.name, false));
  if (!done && is_missing(done.error()))
    co_await no_such_attribute(name);
  co_await done;
  co_return reply();
}

// mkdir(2) or rmdir(2) of a name in a directory, with the locks that those have.
task<void> operations::change_directory(fuse_in_header request, std::string parent,
                                        std::string name, bool is_made) {
  async_shared_mutex::guard guard = co_await mount_.looking.lock_shared();
  inode_pin at = co_await find_by_attribute(request, parent);
  if (at->as_directory() != nullptr &&
      at->as_directory()->changes_graph() == graph_change::alone) {
    at = {};
    guard = {};
    guard = co_await mount_.looking.lock();
    at = co_await find_by_attribute(request, parent);
  }
  directory* const where = at->as_directory();
  if (where == nullptr)
    co_await no_such_attribute(parent);
  const attributes a = co_await where->describe();
  if (where->changes_graph() == graph_change::by_itself)
    guard = {};
  result<> done;
  if (!may(request, a, file_right::write) || !may(request, a, file_right::search))
    done = denied(*where, "written");
  else if (is_made)
    done = co_await as_result(where->make(name, request.pid));
  else
    done = co_await as_result(where->remove(name, request.pid));
  co_await note_failure(*where, request.pid, is_made ? "mkdir" : "rmdir", std::move(done));
}

} // namespace bgfs
