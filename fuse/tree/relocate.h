// SPDX-License-Identifier: MIT
// Leading nodes from loop to loop. A component goes as a whole; requests on its roots wait at their
// residences meanwhile, and go on where it has arrived.
//
// By who holds `looking` and `opening` alone.
#pragma once

#include "fuse/tree/mount_state.h"

namespace bgfs {

// Everything that these nodes are connected with moves to `to`. Waits for requests that are
// running; when it fails (it was interrupted while it waited) some may have moved.
task<void> gather(mount_state& mount, std::vector<node*> nodes, graph& to);

// Every component moves to the thread that its exports name, unless it is there. Does not fail.
// The threads are there: mount_state::graph_of.
task<void> settle(mount_state& mount);

} // namespace bgfs
