// SPDX-License-Identifier: MIT
// Who asks, held against owner, group and mode of what is asked for. The kernel does that for every
// path; what is reached through an attribute of another file is checked here.
#pragma once

#include "fuse/tree/inode.h"

namespace bgfs {

// What permission bits grant, of those for others: 4 read, 2 write, 1 search.
enum class file_right : u8 { search = 1, write = 2, read = 4 };

// Whether who sent the request may do that. The superuser of the mount's own user namespace may do
// all. Supplementary groups are those of /proc, of a process of another namespace none.
[[nodiscard]] bool may(const fuse_in_header& request, const attributes& what, file_right wanted);

// Pure. `is_in_group`: of the group that the file has.
[[nodiscard]] bool mode_grants(mode_t mode, bool is_owner, bool is_in_group, file_right wanted);

} // namespace bgfs
