// SPDX-License-Identifier: MIT
// Whether to look again for a while before going to sleep. Waking up takes longer, above all on
// another processor that is idle, than a client that waits for each answer takes for its next
// request. It lasts a short while at most, and is tried more and more rarely where it does not pay:
// who has nothing to do sleeps.
#pragma once

#include "graph/base/back_off.h"
#include "graph/io/loop.h"

#include <chrono>
#include <optional>

namespace bgfs {

class spinning {
public:
  static constexpr std::chrono::microseconds length{50};

  // Where there is one processor only, it would keep those from running that it waits for.
  explicit spinning(bool has_other_processors) : is_useful_(has_other_processors) {}

  // Nothing is there. True: look again; false: sleep.
  [[nodiscard]] bool lasts(steady_time now) {
    if (!is_useful_)
      return false;
    if (!began_) {
      began_ = now;
      is_spinning_ = sleeps_.is_due();
    }
    if (is_spinning_ && now - *began_ >= length) {
      is_spinning_ = false;
      sleeps_.failed();
    }
    return is_spinning_;
  }
  // Was woken. A part of that time went by with waking up, so more than the length may have been
  // worth it.
  void woke(steady_time now) {
    if (began_ && now - *began_ < 2 * length)
      sleeps_.succeeded();
  }
  // Something was there.
  void found() {
    if (is_spinning_)
      sleeps_.succeeded();
    is_spinning_ = false;
    began_.reset();
  }

private:
  const bool is_useful_;
  bool is_spinning_ = false;
  std::optional<steady_time> began_; // the first look that found nothing
  back_off sleeps_;                  // that spinning comes before
};

} // namespace bgfs
