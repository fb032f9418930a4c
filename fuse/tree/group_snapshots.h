// SPDX-License-Identifier: MIT
// .bgfs/snapshots/: one internal snapshot of all roots that are open and writable, at one instant,
// all or none. On the loop of the mount, by who holds mount_state::looking. What a root that serves
// no writes shows is somebody else's to keep.
#pragma once

#include "fuse/tree/exported_root.h"

namespace bgfs {

// The roots it is about.
[[nodiscard]] std::vector<root_pointer> group_roots(const mount_state& mount);
// They keep external snapshots: then what changes those of all is called by nobody who holds
// mount_state::looking.
[[nodiscard]] bool has_external_group(const mount_state& mount);
// Keeps others from changing the snapshots of these roots. In the order of the mount, so that two
// who want them all do not wait for each other.
task<std::vector<async_mutex::guard>> lock_snapshots(const std::vector<root_pointer>& roots);
// Names that all of them have, in the order of the first.
task<std::vector<std::string>> group_names(mount_state& mount);
task<bool> is_group_name(mount_state& mount, std::string name);

task<void> create_group_snapshot(mount_state& mount, std::string name);
// From all of them. Whatever stands in the way of any is found before the first is deleted; an
// error later says which are deleted.
task<void> remove_group_snapshot(mount_state& mount, std::string name, u32 pid);
void note_group_lister(mount_state& mount, const std::string& name, u32 pid);

} // namespace bgfs
