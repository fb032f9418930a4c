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
