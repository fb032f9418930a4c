// SPDX-License-Identifier: MIT
#include "fuse/protocol/opcode_name.h"

#include "fuse/protocol/kernel.h"

#include <algorithm>
#include <array>

namespace bgfs {
namespace {

struct named_opcode {
  u32 opcode;
  std::string_view name;
};

constexpr std::array names = {
    named_opcode{FUSE_LOOKUP, "lookup"},
    named_opcode{FUSE_GETATTR, "getattr"},
    named_opcode{FUSE_SETATTR, "setattr"},
    named_opcode{FUSE_READLINK, "readlink"},
    named_opcode{FUSE_OPEN, "open"},
    named_opcode{FUSE_READ, "read"},
    named_opcode{FUSE_WRITE, "write"},
    named_opcode{FUSE_STATFS, "statfs"},
    named_opcode{FUSE_RELEASE, "release"},
    named_opcode{FUSE_FSYNC, "fsync"},
    named_opcode{FUSE_GETXATTR, "getxattr"},
    named_opcode{FUSE_LISTXATTR, "listxattr"},
    named_opcode{FUSE_FLUSH, "flush"},
    named_opcode{FUSE_OPENDIR, "opendir"},
    named_opcode{FUSE_READDIR, "readdir"},
    named_opcode{FUSE_READDIRPLUS, "readdirplus"},
    named_opcode{FUSE_RELEASEDIR, "releasedir"},
    named_opcode{FUSE_FSYNCDIR, "fsyncdir"},
    named_opcode{FUSE_ACCESS, "access"},
    named_opcode{FUSE_FALLOCATE, "fallocate"},
    named_opcode{FUSE_LSEEK, "lseek"},
    named_opcode{FUSE_COPY_FILE_RANGE, "copy-file-range"},
    named_opcode{kernel::opcode_copy_file_range_64, "copy-file-range-64"},
    named_opcode{FUSE_MKDIR, "mkdir"},
    named_opcode{FUSE_RMDIR, "rmdir"},
    named_opcode{FUSE_RENAME, "rename"},
    named_opcode{FUSE_RENAME2, "rename2"},
    named_opcode{FUSE_UNLINK, "unlink"},
    named_opcode{FUSE_MKNOD, "mknod"},
    named_opcode{FUSE_CREATE, "create"},
    named_opcode{FUSE_LINK, "link"},
    named_opcode{FUSE_SYMLINK, "symlink"},
    named_opcode{FUSE_SYNCFS, "syncfs"},
    named_opcode{FUSE_DESTROY, "destroy"},
};

} // namespace

std::string_view opcode_name(u32 opcode) {
  const auto found = std::ranges::find(names, opcode, &named_opcode::opcode);
  return found == names.end() ? "other" : found->name;
}

} // namespace bgfs
