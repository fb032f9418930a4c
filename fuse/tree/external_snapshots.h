// SPDX-License-Identifier: MIT
// External snapshots (`snapshots: {mode: external, directory}` of an export), of disks of any
// format: an overlay is put over what the root shows, which nobody writes to any more and is the
// snapshot. Which those are stands in the state file beside the graph file (config/graph_state.h),
// so that a mount finds the overlay that is written now, and no other.
//
// Each change is a reload with another state: one transaction, in which the state file is written
// last. If we stop before it, the new overlay is a file that nobody knows; after it, it is what the
// root shows.
//
// On the loop of the mount, by nobody who holds mount_state::looking.
#pragma once

#include "fuse/tree/exported_root.h"
#include "fuse/tree/snapshot_index.h"

namespace bgfs {

[[nodiscard]] bool has_external_snapshots(const exported_root& root);
// Those of a root, oldest first.
[[nodiscard]] snapshot_index external_index(const mount_state& mount, const exported_root& root);
// The node that shows one; empty: it is gone.
[[nodiscard]] std::string node_of_snapshot(const mount_state& mount, const exported_root& root,
                                           std::string_view key);

// Of all of the roots at one instant, all or none.
task<void> create_external_snapshots(mount_state& mount, std::vector<root_pointer> roots,
                                     std::string name);
// Returns when it is off the list and what it alone held is merged into what is above it. That it
// could not be merged is only logged: the next time it is tried again.
task<void> remove_external_snapshots(mount_state& mount, std::vector<root_pointer> roots,
                                     std::string shown_name, u32 pid);
task<void> rename_external_snapshot(mount_state& mount, root_pointer root, std::string from,
                                    std::string to);
// What was written since the last snapshot is gone.
task<void> revert_to_external_snapshot(mount_state& mount, root_pointer root,
                                       std::string shown_name);

} // namespace bgfs
