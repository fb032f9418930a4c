// SPDX-License-Identifier: MIT
// Waiting for time to pass, and giving others their turn.
#pragma once

#include "graph/io/task.h"

#include <chrono>

namespace bgfs {

// Ends with error_kind::cancelled when the task is cancelled.
task<void> sleep_for(std::chrono::nanoseconds duration);

// For work that is long and seldom waits: what is ready beside it runs when a slice is used up.
class time_slice {
public:
  static constexpr std::chrono::microseconds length{500};
  [[nodiscard]] bool is_used_up() const { return std::chrono::steady_clock::now() >= end_; }
  // The next one begins when everybody else has had a turn. As sleep_for.
  task<void> next();

private:
  std::chrono::steady_clock::time_point end_ = std::chrono::steady_clock::now() + length;
};

} // namespace bgfs
