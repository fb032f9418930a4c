// SPDX-License-Identifier: MIT
// The command line. main() makes the list of drivers and the thing that mounts, and calls
// run_program.
#pragma once

#include "config/graph_config.h"

namespace bgfs {

// `bgfs mount ...`, parsed and read; nothing is opened yet.
struct mount_request {
  graph_config config;
  config_source source;             // where `config` comes from
  std::string directory;            // or a regular file, to show one root on
  std::vector<std::string> options; // of -o, one each, ours and libfuse's
  bool is_foreground = false;
  bool is_strict = false; // -o strict: any failed root fails the mount
  bool is_fake = false;   // everything but the mount: what mount -f asks for
  int ready_fd = -1;      // --ready-fd: gets "ready\n" when the mount is usable
};

// `bgfs mount -o remount,...`.
// mount(8) names the source, too, and then says everything that is to be in force; a person who
// names only the directory says what is to be different.
struct remount_request {
  std::string source; // empty: whatever is mounted there
  std::string directory;
  std::vector<std::string> options;
};

// Implemented in fuse/. Return values are exit statuses as of mount(8); messages go to stderr.
struct mounter {
  virtual ~mounter() = default;
  virtual int mount(mount_request request, const registry& drivers) = 0;
  virtual int remount(const remount_request& request) = 0;
  virtual int umount(const std::string& directory) = 0;
};

// Runs the command and returns its exit status.
int run_program(int argc, char** argv, const registry& drivers, mounter& mounts);

} // namespace bgfs
