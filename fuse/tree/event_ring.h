// SPDX-License-Identifier: MIT
// The events of a mount: what its graph reports and what becomes of the mount and its roots, one
// line of JSON each, for .bgfs/events.
#pragma once

#include "fuse/tree/line_ring.h"
#include "graph/io/file.h"
#include "graph/model/events.h"

namespace bgfs {

// Of the mount itself; those of the graph are named where they are made.
namespace event_name {
inline constexpr std::string_view mount_ready = "MOUNT_READY";       // directory, source
inline constexpr std::string_view root_opened = "ROOT_OPENED";       // root, node-name, state
inline constexpr std::string_view root_failed = "ROOT_FAILED";       // root, reason
inline constexpr std::string_view root_closed = "ROOT_CLOSED";       // root
inline constexpr std::string_view reload_begun = "RELOAD_BEGUN";     // is-forced
inline constexpr std::string_view reload_applied = "RELOAD_APPLIED"; // plan
inline constexpr std::string_view reload_refused = "RELOAD_REFUSED"; // reason
inline constexpr std::string_view events_lost = "EVENTS_LOST";       // count; never kept
} // namespace event_name

class event_ring final : public event_sink {
public:
  static constexpr std::size_t kept_max = 1024;
  event_ring();

  // Any thread. Does not suspend.
  void emit(std::string_view type, value data) override;

  [[nodiscard]] line_ring& lines() { return lines_; }
  // A file in memory that changes with each event: who may look into /proc/PID/fd can wait for the
  // next one with inotify, whatever the kernel does with poll(2). -1: there is none.
  [[nodiscard]] int wake_fd() const { return wake_.is_open() ? wake_.get() : -1; }

private:
  line_ring lines_;
  descriptor wake_;
};

} // namespace bgfs
