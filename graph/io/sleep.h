// SPDX-License-Identifier: MIT
// Waiting for time to pass.
#pragma once

#include "graph/io/task.h"

#include <chrono>

namespace bgfs {

// Ends with error_kind::cancelled when the task is cancelled.
task<void> sleep_for(std::chrono::nanoseconds duration);

} // namespace bgfs
