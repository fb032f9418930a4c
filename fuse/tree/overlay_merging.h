// SPDX-License-Identifier: MIT
// Images of external snapshots that nothing names any more are merged into what lies below them, or
// dropped, so that a chain does not grow with every snapshot that is made and deleted.
#pragma once

#include "fuse/tree/mount_state.h"

namespace bgfs {

// Merges and drops as long as there is something to. Whenever it stops, and whatever fails, every
// root and every snapshot reads as before: what is merged is copied down into an image that only
// what is above it reads, which holds all of that itself until the state file says otherwise. By
// nobody who holds mount_state::looking; an error is that of the first that failed. It is the work
// of the job `control`.
task<void> merge_overlays(mount_state& mount, job& control);
[[nodiscard]] bool has_overlays_to_merge(const mount_state& mount);

} // namespace bgfs
