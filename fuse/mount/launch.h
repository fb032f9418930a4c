// SPDX-License-Identifier: MIT
// Going into the background without losing the outcome: the caller's process waits until the mount
// is usable or has failed, and ends with that status; messages appear on its standard error.
#pragma once

#include "graph/io/file.h"

#include <functional>

namespace bgfs {

// How the serving process tells that it is ready. Exactly one ready(), or none and an exit status.
class launch_report {
public:
  launch_report(descriptor to_parent, int ready_fd)
      : to_parent_(std::move(to_parent)), ready_fd_(ready_fd) {}

  // The mount is usable: the caller's command ends with status 0, --ready-fd gets "ready\n", and in
  // the background nothing is printed any more.
  void ready();
  [[nodiscard]] bool is_ready() const { return is_ready_; }

private:
  friend int launch(bool, int, const std::function<int(launch_report&)>&);
  void finish(int status);
  descriptor to_parent_; // closed: this is the caller's own process
  int ready_fd_;
  bool is_ready_ = false;
};

// Runs `serve` here (foreground) or in a process of its own, and returns the exit status of the
// command. Called before any thread is started.
int launch(bool is_foreground, int ready_fd, const std::function<int(launch_report&)>& serve);

} // namespace bgfs
