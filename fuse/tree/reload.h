// SPDX-License-Identifier: MIT
// Reading the configuration again and applying the difference, while everything is served: one
// transaction, after which either the new configuration is in force, or nothing was changed.
#pragma once

#include "config/reload_plan.h"
#include "fuse/tree/mount_state.h"

namespace bgfs {

struct reload_request {
  bool is_forced = false; // roots that somebody has open may go, or become read-only
  u32 pid = 0;            // who asks; 0: a signal
};

// Returns what was done, one line each. An error's message ends with "nothing was changed".
task<std::string> reload(mount_state& mount, reload_request request);
// What a reload would do, or why it would be refused. Reads the configuration, and opens images
// that are new read-only and without locks to see whether they can be opened.
task<std::string> describe_reload(mount_state& mount);

} // namespace bgfs
