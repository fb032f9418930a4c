// SPDX-License-Identifier: MIT
// Deleting is deliberate: what rmdir(2) asks before it deletes a snapshot or a bitmap.
#pragma once

#include "graph/io/task.h"

#include <functional>

namespace bgfs {

struct mount_state;

// ENOTEMPTY for a process that has looked into the directory (lister_ledger), with what to do.
// `what` is the thing: "snapshot 'before' of 'web'".
[[nodiscard]] result<> require_no_lister(mount_state& mount, u32 pid, const std::string& directory,
                                         const std::string& what);

// Whether something is in use, asked again for a moment before a yes counts: close(2) returns
// before we hear of it, and who has closed a file may go on at once.
task<void> require_soon(std::function<result<>()> is_unused);

} // namespace bgfs
