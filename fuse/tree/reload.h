// SPDX-License-Identifier: MIT
// Reading the configuration again and applying the difference, while everything is served: one
// transaction, after which either the new configuration is in force, or nothing was changed.
#pragma once

#include "config/reload_plan.h"
#include "fuse/tree/mount_state.h"

namespace bgfs {

struct reload_request {
  bool is_forced = false; // roots that somebody has open may go, or become read-only
  // Everything read-only from now on, as -o ro asks for, or no longer; absent: as it was.
  std::optional<bool> is_read_only;
  // Instead of what the state file says; it is written with the commit. Null: the file counts.
  graph_state* state = nullptr;
  // Called before the state is written, when what the edit touches is drained and leads to its new
  // nodes; it may change the snapshots of the state.
  std::function<task<void>(graph_state&)> before_commit = {};
  u32 pid = 0; // who asks; 0: a signal
};

// Returns what was done, one line each. An error's message ends with "nothing was changed".
task<std::string> reload(mount_state& mount, reload_request request);
// Gives a node another backing node, or none, and keeps that in the state file: another reload with
// another state. `to` shows the same bytes, or the overlay changes where it holds nothing.
task<void> change_backing_at_run_time(mount_state& mount, std::string overlay,
                                      std::optional<std::string> to, u32 pid);
// Changes the state that is kept beside the graph file, and what is served with it: a reload with
// another state, which is written with the commit. Refused while the graph file has been edited and
// not been reloaded: only one thing changes at a time. By nobody who holds mount_state::looking;
// what the kernel has to hear may not be heard yet.
task<void> change_state_at_run_time(mount_state& mount, std::function<void(graph_state&)> change,
                                    u32 pid,
                                    std::function<task<void>(graph_state&)> before_commit = {});
// So that others, who know nothing of the state file, find the same chain: the header of the image
// names the backing node that it has. What fails is only logged; images that are read-only are left
// alone.
task<void> write_backing_name(mount_state& mount, std::string overlay, u32 pid);
// What a reload would do, or why it would be refused. Reads the configuration, and opens images
// that are new read-only and without locks to see whether they can be opened.
task<std::string> describe_reload(mount_state& mount);

} // namespace bgfs
