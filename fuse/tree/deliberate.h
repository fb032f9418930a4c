// SPDX-License-Identifier: MIT
// Deleting is deliberate: what rmdir(2) asks before it deletes a snapshot or a bitmap.
#pragma once

#include "graph/base/result.h"

namespace bgfs {

struct mount_state;

// ENOTEMPTY for a process that has looked into the directory (lister_ledger), with what to do.
// `what` is the thing: "snapshot 'before' of 'web'".
[[nodiscard]] result<> require_no_lister(mount_state& mount, u32 pid, const std::string& directory,
                                         const std::string& what);

} // namespace bgfs
