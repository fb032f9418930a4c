// SPDX-License-Identifier: MIT
// The life of a mount: lock the graph, open the roots, mount, serve until the end, close
// everything.
#pragma once

#include "config/program.h"
#include "fuse/mount/launch.h"
#include "fuse/mount/mount_point.h"

namespace bgfs {

struct serve_request {
  mount_request mount;
  std::string directory;    // the mount point: absolute, without symbolic links
  bool is_one_file = false; // it is a regular file
  mount_options options;
};

// Returns the exit status of the serving process.
int serve_mount(serve_request request, const registry& drivers, launch_report& report);

} // namespace bgfs
