// SPDX-License-Identifier: MIT
// Names that are made, removed and moved: what a directory says to it is done, and what it refuses
// can be read in last-error.
#include "fuse/operations/operations.h"

#include <cerrno>
#include <linux/fs.h>

namespace bgfs {

result<directory*> operations::directory_of(const inode_pin& found) const {
  directory* const where = found->as_directory();
  if (where == nullptr)
    return fail(error{error_kind::not_found, "not a directory", ENOTDIR});
  return where;
}

task<void> operations::note_failure(inode& where, u32 pid, std::string_view verb,
                                    result<> outcome) {
  if (outcome)
    co_return;
  exported_root* const root = where.root_of();
  (root != nullptr ? root->log : mount_.log).add(pid, verb, outcome.error());
  co_await fail(std::move(outcome).error());
}

graph_change operations::changes_graph(const fuse_in_header& request) {
  const inode_pin found = inodes_.find(request.nodeid);
  directory* const where = found ? found->as_directory() : nullptr;
  return where == nullptr ? graph_change::none : where->changes_graph();
}

task<reply> operations::make_directory(fuse_in_header request, std::string name) {
  const inode_pin parent = co_await find(request);
  directory* const where = co_await directory_of(parent);
  result<> made = co_await as_result(where->make(name, request.pid));
  co_await note_failure(*where, request.pid, "mkdir", std::move(made));
  async_shared_mutex::guard looking;
  if (where->changes_graph() == graph_change::by_itself)
    looking = co_await mount_.looking.lock_shared();
  reply entry = co_await lookup(request, name);
  co_return entry;
}

task<reply> operations::remove_directory(fuse_in_header request, std::string name) {
  const inode_pin parent = co_await find(request);
  directory* const where = co_await directory_of(parent);
  result<> removed = co_await as_result(where->remove(name, request.pid));
  co_await note_failure(*where, request.pid, "rmdir", std::move(removed));
  co_return reply();
}

namespace {

task<void> rename_within(directory& from, const directory& to, const ask::rename& what, u32 pid) {
  if ((what.flags & ~u32{RENAME_NOREPLACE}) != 0)
    co_await fail(error_kind::invalid_argument,
                  "'{}' cannot be renamed with flags {:#x}: names are neither exchanged nor left "
                  "behind here",
                  what.from, what.flags);
  // Not EXDEV: mv(1) would go on to copy, and then to delete.
  if (&from != &to)
    co_await fail(error_kind::permission,
                  "'{}' cannot be moved to another directory; rename it where it is, or copy what "
                  "it shows",
                  what.from);
  co_await from.rename(what.from, what.to, pid);
}

} // namespace

task<reply> operations::rename(fuse_in_header request, ask::rename what) {
  const inode_pin parent = co_await find(request);
  const inode_pin target = inodes_.find(what.to_directory);
  if (!target)
    co_await fail(error{error_kind::not_found, "the kernel has forgotten the directory", ESTALE});
  directory* const from = co_await directory_of(parent);
  const directory* const to = co_await directory_of(target);
  result<> renamed = co_await as_result(rename_within(*from, *to, what, request.pid));
  co_await note_failure(*from, request.pid, "rename", std::move(renamed));
  co_return reply();
}

// Who deletes what is in a directory means to delete the directory as well: to what stands above it
// he has looked inside.
void operations::note_deleter(const directory& where, u32 pid) {
  for (std::string path = where.path(); path.starts_with('/'); path.erase(path.rfind('/')))
    if (const inode_pin above = inodes_.find(path); above && above->as_directory() != nullptr)
      above->as_directory()->opened_by(pid);
}

task<reply> operations::unlink(fuse_in_header request, std::string name) {
  const inode_pin parent = co_await find(request);
  directory* const where = co_await directory_of(parent);
  note_deleter(*where, request.pid);
  co_await note_failure(*where, request.pid, "unlink",
                        fail(where->refuse_unlink(name, request.pid)));
  co_return reply();
}

task<reply> operations::make_other(fuse_in_header request, ask::make_other what) {
  const inode_pin parent = co_await find(request);
  directory* const where = co_await directory_of(parent);
  co_await note_failure(
      *where, request.pid, what.verb,
      fail(error_kind::permission,
           "'{}' cannot be made in '{}/': the mount has the names of its graph, and no files of "
           "its own",
           what.name, where->path()));
  co_return reply();
}

} // namespace bgfs
