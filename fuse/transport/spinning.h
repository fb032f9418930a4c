// SPDX-License-Identifier: MIT
// Whether to look again for a while before going to sleep. Waking up takes longer, above all on
// another processor that is idle, than a client that waits for each answer takes for its next
// request. It lasts a short while at most, and is tried more and more rarely where it does not pay:
// who has nothing to do sleeps.
#pragma once

#include "graph/io/loop.h"

#include <algorithm>
#include <chrono>
#include <optional>

namespace bgfs {

class spinning {
public:
  static constexpr std::chrono::microseconds length{50};
  static constexpr unsigned skipped_max = 63;

  // Where there is one processor only, it would keep those from running that it waits for.
  explicit spinning(bool has_other_processors) : is_useful_(has_other_processors) {}

  // Nothing is there. True: look again; false: sleep.
  [[nodiscard]] bool lasts(steady_time now) {
    if (!is_useful_)
      return false;
    if (!began_) {
      began_ = now;
      is_spinning_ = to_skip_ == 0;
      to_skip_ -= is_spinning_ ? 0 : 1;
    }
    if (is_spinning_ && now - *began_ >= length) {
      is_spinning_ = false;
      to_skip_ = skipped_last_ = std::min(skipped_last_ * 2 + 1, skipped_max);
    }
    return is_spinning_;
  }
  // Was woken. A part of that time went by with waking up, so more than the length may have been
  // worth it.
  void woke(steady_time now) {
    if (began_ && now - *began_ < 2 * length)
      to_skip_ = skipped_last_ = 0;
  }
  // Something was there.
  void found() {
    if (is_spinning_)
      to_skip_ = skipped_last_ = 0;
    is_spinning_ = false;
    began_.reset();
  }

private:
  const bool is_useful_;
  bool is_spinning_ = false;
  std::optional<steady_time> began_; // the first look that found nothing
  unsigned to_skip_ = 0;             // sleeps that no spinning comes before
  unsigned skipped_last_ = 0;
};

} // namespace bgfs
