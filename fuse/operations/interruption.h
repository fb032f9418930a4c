// SPDX-License-Identifier: MIT
// Whether a process that interrupts a request is being killed. The kernel interrupts for every
// signal that is handled; a program with a timer does not expect EINTR from a disk, which no local
// file system gives it. So a request is cut short at once only for a process that is about to end;
// for others it is given some time to end by itself.
#pragma once

#include "graph/base/ints.h"

#include <chrono>
#include <string_view>

namespace bgfs {

inline constexpr std::chrono::milliseconds interruption_grace{1000};

// `pid` as in the request: a thread. False when it cannot be said.
[[nodiscard]] bool is_being_killed(u32 pid);

// From the text of /proc/PID/status. Pure.
[[nodiscard]] bool has_pending_kill(std::string_view status);

} // namespace bgfs
