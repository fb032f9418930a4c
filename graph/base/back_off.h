// SPDX-License-Identifier: MIT
// How often to try what may not pay: always, as long as it succeeds; where it keeps failing, after
// 1, 3, 7 and at most 63 times without it.
#pragma once

#include "graph/base/ints.h"

#include <algorithm>

namespace bgfs {

class back_off {
public:
  static constexpr u8 skipped_max = 63;

  // Counts the times it says no.
  [[nodiscard]] bool is_due() {
    if (to_skip_ == 0)
      return true;
    to_skip_--;
    return false;
  }
  void succeeded() { to_skip_ = skipped_last_ = 0; }
  void failed() {
    to_skip_ = skipped_last_ = static_cast<u8>(std::min(skipped_last_ * 2 + 1, int{skipped_max}));
  }

private:
  u8 to_skip_ = 0;
  u8 skipped_last_ = 0;
};

} // namespace bgfs
