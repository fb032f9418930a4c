// SPDX-License-Identifier: MIT
// .bgfs/snapshots/: one snapshot of all writable roots at one instant, all or none. On the loop of
// the mount, by who holds mount_state::looking. What a root that serves no writes shows is somebody
// else's to keep.
#pragma once

#include "fuse/tree/exported_root.h"

namespace bgfs {

// The roots it is about: all that are writable, opened if need be. ENOMEDIUM: one could not be.
task<std::vector<root_pointer>> open_group(mount_state& mount, u32 pid);
// They keep external snapshots: then what changes those of all is called by nobody who holds
// mount_state::looking.
[[nodiscard]] bool has_external_group(const mount_state& mount);
// Keeps others from changing the snapshots of these roots. In the order of the mount, so that two
// who want them all do not wait for each other.
task<std::vector<async_mutex::guard>> lock_snapshots(const std::vector<root_pointer>& roots);
// Names that several of those that are open have - roots come and go, and what was made of all has
// not one that came later - or the only one, in the order of the first that has one.
task<std::vector<std::string>> group_names(mount_state& mount);
// The open ones that have it; empty: it is no name of the group.
task<std::vector<root_pointer>> group_with(mount_state& mount, std::string name);

task<void> create_group_snapshot(mount_state& mount, std::string name, u32 pid);
// From all that have it. Whatever stands in the way of any is found before the first is deleted; an
// error later says which are deleted.
task<void> remove_group_snapshot(mount_state& mount, std::string name, u32 pid);
void note_group_lister(mount_state& mount, const std::string& name, u32 pid);

} // namespace bgfs
