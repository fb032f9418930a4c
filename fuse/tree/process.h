// SPDX-License-Identifier: MIT
// The processes that ask, as /proc tells of them. A request names a thread.
#pragma once

#include "graph/base/ints.h"

#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

namespace bgfs {

// One life of a process: its number, and when it began, since numbers are used again. All zero: a
// process that this one cannot see, of another namespace; all of those look the same.
struct process_identity {
  u32 pid = 0;
  u64 start = 0; // in clock ticks since the system was started

  friend auto operator<=>(const process_identity&, const process_identity&) = default;
};

// Of the process that the thread belongs to. One that has just ended counts as one not seen.
[[nodiscard]] process_identity process_of(u32 thread);
[[nodiscard]] bool is_alive(const process_identity& process);
// The supplementary groups of a thread; none if they cannot be said.
[[nodiscard]] std::vector<gid_t> groups_of(u32 thread);
// Its command, as ps(1) names it; "" if it cannot be said.
[[nodiscard]] std::string command_of(u32 thread);

// From the text of /proc/TID/status, and of /proc/PID/stat. Pure.
[[nodiscard]] std::optional<u32> process_in_status(std::string_view status);
[[nodiscard]] std::vector<gid_t> groups_in_status(std::string_view status);
[[nodiscard]] std::optional<u64> start_in_stat(std::string_view stat);

} // namespace bgfs
