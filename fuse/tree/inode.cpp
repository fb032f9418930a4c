// SPDX-License-Identifier: MIT
#include "fuse/tree/inode.h"

namespace bgfs {

fuse_attr to_wire(const attributes& a, u64 inode_number) {
  fuse_attr wire{};
  wire.ino = inode_number;
  wire.size = a.length;
  wire.blocks = a.blocks;
  wire.atime = wire.mtime = wire.ctime = static_cast<u64>(a.modified.tv_sec);
  wire.atimensec = wire.mtimensec = wire.ctimensec = static_cast<u32>(a.modified.tv_nsec);
  wire.mode = a.mode;
  wire.nlink = a.link_count;
  wire.uid = a.owner;
  wire.gid = a.group;
  wire.blksize = a.block_length;
  return wire;
}

task<void> directory::make(std::string name, u32) {
  co_await fail(
      error_kind::permission,
      "'{}' cannot be made in '{}/': directories are made in NAME.d/snapshots, points and "
      "bitmaps, and in .bgfs/snapshots and points",
      name, path());
}

task<void> directory::remove(std::string name, u32) {
  co_await fail(error_kind::permission,
                "'{}/{}' cannot be removed: it is what the graph has; edit the graph file and "
                "reload it",
                path(), name);
}

task<void> directory::rename(std::string from, std::string to, u32) {
  co_await fail(error_kind::permission,
                "'{}/{}' cannot be renamed to '{}': its name is what the graph has; edit the graph "
                "file and reload it",
                path(), from, to);
}

error directory::refuse_unlink(const std::string& name, u32) {
  return {error_kind::permission,
          fmt::format("'{}/{}' cannot be unlinked: files of the mount go with what they show; edit "
                      "the graph file and reload it",
                      path(), name)};
}

task<attributes> link::describe() {
  attributes a;
  a.mode = S_IFLNK | 0777;
  a.owner = owner_;
  a.group = group_;
  a.length = target_.size();
  a.modified = made_;
  co_return a;
}

} // namespace bgfs
