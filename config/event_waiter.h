// SPDX-License-Identifier: MIT
// Waiting for the next event of a mount. poll(2) on .bgfs/events would do, but the kernel answers
// it by itself (always ready) once io_uring was used on a raw file of the mount: see
// fuse/README.md.
#pragma once

#include "config/mount_client.h"
#include "config/whole_file.h"

#include <chrono>
#include <optional>

namespace bgfs {

class event_waiter {
public:
  explicit event_waiter(const mount_client& mount);

  // Whether it is woken by each event; else it looks again every so often.
  [[nodiscard]] bool is_exact() const { return changes_.is_open(); }
  // Returns soon after an event, after the end of the serving process, at `until`, or for no
  // reason. What happened since the waiter was made, or since the last wait, is not missed.
  void wait(std::optional<std::chrono::steady_clock::time_point> until);

private:
  owned_fd changes_; // inotify; closed: look again every so often
  owned_fd end_;     // of the process
};

} // namespace bgfs
