// SPDX-License-Identifier: MIT
// So many bytes a second, in slices of 100 ms: what goes over a slice is paid for in those after
// it. Pure: whoever uses it says what time it is.
#pragma once

#include "graph/base/ints.h"

#include <algorithm>
#include <chrono>

namespace bgfs {

class rate_limit {
public:
  using time = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::milliseconds slice{100};
  static constexpr u64 slice_length_min = 65536; // of bytes that are worth a request

  // Bytes a second; 0: unlimited. What was spent before is forgotten.
  void set_speed(u64 bytes_per_second) {
    speed_ = bytes_per_second;
    free_at_ = {};
  }
  [[nodiscard]] u64 speed() const { return speed_; }
  // How much one slice should take; 0: it has no limit.
  [[nodiscard]] u64 slice_length() const {
    constexpr u64 per_second = std::chrono::seconds(1) / slice;
    return speed_ == 0 ? 0 : std::max(speed_ / per_second, slice_length_min);
  }
  void spend(u64 bytes, time now) {
    if (speed_ == 0)
      return;
    const double seconds = static_cast<double>(bytes) / static_cast<double>(speed_);
    free_at_ = std::max(free_at_, now) +
               std::chrono::duration_cast<time::duration>(std::chrono::duration<double>(seconds));
  }
  // When the next bytes may be spent; not later than `now`: at once.
  [[nodiscard]] time free_at() const { return free_at_; }

private:
  u64 speed_ = 0;
  time free_at_{};
};

} // namespace bgfs
