// SPDX-License-Identifier: MIT
// Names and attributes: lookup, forget, getattr, setattr, readlink, statfs.
#include "fuse/operations/operations.h"

#include "fuse/tree/directories.h"
#include "graph/io/offload.h"

#include <algorithm>
#include <cerrno>
#include <sys/statvfs.h>

namespace bgfs {
namespace {

u64 seconds_kept(const attributes& a) {
  return a.kernel_may_keep ? static_cast<u64>(notifier::kept_for.count()) : 0;
}

fuse_attr_out attributes_out(const attributes& a, u64 number) {
  fuse_attr_out out{};
  out.attr_valid = seconds_kept(a);
  out.attr = to_wire(a, number);
  return out;
}

struct space {
  bool is_known = false;
  struct statvfs of{};
};

space space_at(const std::string& path) {
  space s;
  s.is_known = !path.empty() && statvfs(path.c_str(), &s.of) == 0;
  return s;
}

fuse_statfs_out to_wire(const struct statvfs& s) {
  fuse_statfs_out out{};
  out.st.blocks = s.f_blocks;
  out.st.bfree = s.f_bfree;
  out.st.bavail = s.f_bavail;
  out.st.files = s.f_files;
  out.st.ffree = s.f_ffree;
  out.st.bsize = static_cast<u32>(s.f_bsize);
  out.st.frsize = static_cast<u32>(s.f_frsize);
  out.st.namelen = kernel::name_length_max;
  return out;
}

std::unique_ptr<inode> make_mount_root(mount_state& mount) {
  if (!mount.is_one_file)
    return make_mount_directory(mount);
  BGFS_ASSERT(mount.roots.size() == 1, "one file shows one root");
  return make_root_file(mount, **mount.roots.begin());
}

} // namespace

operations::operations(mount_state& mount) : mount_(mount), inodes_(make_mount_root(mount)) {
  inodes_.find(FUSE_ROOT_ID)->introduced(); // the kernel knows it without asking
  mount_.root_removed = [this](const exported_root& root) { inodes_.disown(root); };
}

result<inode_pin> operations::find(const fuse_in_header& request) {
  inode_pin found = inodes_.find(request.nodeid);
  if (!found)
    return fail(
        error{error_kind::not_found,
              fmt::format("the kernel asks about inode {}, which it has forgotten", request.nodeid),
              ESTALE});
  return found;
}

// What changes while it is described may be told to the kernel before the answer is; then it must
// not keep what it gets.
task<attributes> operations::describe(inode& target) {
  const exported_root* const root = target.root_of();
  const u64 before = root != nullptr ? root->news_for_kernel() : 0;
  attributes a = co_await target.describe();
  if (root != nullptr && root->news_for_kernel() != before)
    a.kernel_may_keep = false;
  co_return a;
}

task<fuse_entry_out> operations::entry_of(inode& target) {
  fuse_entry_out out{};
  // Before it is described: what changes meanwhile has somebody to tell.
  target.introduced();
  attributes a = co_await describe(target);
  // Notifications may overtake an answer that goes through a ring. Of what the kernel knows already
  // it then drops the answer's attributes; of what it learns by this answer it would keep them.
  if (mount_.kernel.uses_uring() && !target.is_known())
    a.kernel_may_keep = false;
  out.nodeid = target.number();
  out.entry_valid = out.attr_valid = seconds_kept(a);
  out.attr = to_wire(a, target.number());
  co_return out;
}

task<reply> operations::lookup(fuse_in_header request, std::string name) {
  const inode_pin parent = co_await find(request);
  directory* const where = parent->as_directory();
  if (where == nullptr)
    co_await fail(error{error_kind::not_found, "not a directory", ENOTDIR});
  if (name == "." || name == "..")
    co_await fail(error_kind::not_found, "the kernel resolves '{}' itself", name);
  auto made = co_await where->find(name);
  const inode_pin child = inodes_.intern(parent->path() + "/" + name, std::move(made));
  const fuse_entry_out out = co_await entry_of(*child);
  inodes_.count_lookup(*child);
  co_return reply::of(out);
}

void operations::forget(const ask::forget& what) {
  for (const fuse_forget_one& one : what.nodes)
    inodes_.forget(one.nodeid, one.nlookup);
}

task<reply> operations::getattr(fuse_in_header request) {
  const inode_pin target = co_await find(request);
  const attributes a = co_await describe(*target);
  co_return reply::of(attributes_out(a, target->number()));
}

task<reply> operations::setattr(fuse_in_header request, fuse_setattr_in in) {
  const inode_pin target = co_await find(request);
  disk_file* const file = target->as_disk();
  const attributes before = co_await target->describe();
  // What a tool like `cp -p` or `rsync -a` sets to what it is already is no change.
  const bool changes_mode =
      (in.valid & FATTR_MODE) != 0 && (in.mode & 07777) != (before.mode & 07777);
  const bool changes_owner = ((in.valid & FATTR_UID) != 0 && in.uid != before.owner) ||
                             ((in.valid & FATTR_GID) != 0 && in.gid != before.group);
  if (changes_mode || changes_owner)
    co_await note_failure(
        *target, request.pid, changes_mode ? "chmod" : "chown",
        fail(error_kind::permission,
             "mode and owner of '{}' come from its export ('mode', 'owner', 'group')",
             target->path()));
  if (file != nullptr) {
    const disk_use use = co_await file->disk(request.pid);
    raw_disk* const disk = use.disk;
    residence& place = target->root_of()->place();
    if ((in.valid & FATTR_SIZE) != 0) {
      result<> outcome;
      if (file->partition_number() != 0)
        outcome = co_await as_result(set_partition_length(*target, disk, in.size));
      else
        outcome = co_await as_result(place.run([&] { return disk->set_length(in.size); }));
      if (!outcome) {
        target->root_of()->log.add(request.pid, "truncate", outcome.error());
        co_await fail(std::move(outcome).error());
      }
      target->root_of()->tell_other_views({});
    }
    const bool sets_time = (in.valid & (FATTR_MTIME | FATTR_MTIME_NOW)) != 0;
    if (sets_time && !disk->policy().is_writable)
      co_await note_failure(*target, request.pid, "utimens",
                            fail(error{error_kind::permission,
                                       fmt::format("'{}' is exported read-only, and so is its time",
                                                   disk->policy().name),
                                       EROFS}));
    if (sets_time) {
      co_await place.look([&] {
        if ((in.valid & FATTR_MTIME_NOW) != 0) {
          disk->time().changed();
        } else {
          disk->time().set({static_cast<std::time_t>(in.mtime), static_cast<long>(in.mtimensec)});
        }
      });
    }
  }
  // Of a view the size is that of its text, whatever a shell's redirection says.
  attributes a = co_await describe(*target);
  if (file != nullptr && (in.valid & FATTR_SIZE) != 0 && a.length != in.size) {
    // It became zeroes instead, and the kernel drops pages only of a file whose length changes. Of
    // a cached one the answer says so, as the kernel does by itself for O_TRUNC; the true length it
    // asks for with the next read or look. Of others only who has mapped them has pages.
    if (target->root_of()->spec().cache == cache_mode::kernel) {
      a.length = in.size;
      a.kernel_may_keep = false;
    } else if (mount_.notifications != nullptr) {
      mount_.notifications->invalidate(target->number(), {});
    }
  }
  co_return reply::of(attributes_out(a, target->number()));
}

task<reply> operations::readlink(fuse_in_header request) {
  const inode_pin target = co_await find(request);
  const link* const l = target->as_link();
  if (l == nullptr)
    co_await fail(error_kind::invalid_argument, "'{}' is no link", target->path());
  co_return reply::of_text(l->target());
}

task<reply> operations::statfs(fuse_in_header request) {
  const inode_pin target = co_await find(request);
  exported_root* const root = target->root_of();
  std::string path;
  u64 length = 0;
  if (root != nullptr && root->disk() != nullptr) {
    path = root->disk()->top().host_path();
    length = co_await root->place().look([&] { return root->disk()->length(); });
  } else if (root == nullptr) {
    path = mount_.config().source();
  }
  const space known = co_await offload([&path] { return space_at(path); });
  if (known.is_known)
    co_return reply::of(to_wire(known.of));
  // No file system lies below (null-co, the network): the disk itself is all there is.
  fuse_statfs_out out{};
  out.st.bsize = out.st.frsize = 4096;
  out.st.blocks = length / 4096;
  out.st.namelen = kernel::name_length_max;
  co_return reply::of(out);
}

} // namespace bgfs
