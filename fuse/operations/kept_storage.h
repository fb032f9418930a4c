// SPDX-License-Identifier: MIT
// What a write lies in as long as it runs.
#pragma once

#include "graph/base/ints.h"

#include <cstddef>

namespace bgfs {

// Requests arrive in storage for the longest of them. One that runs alone keeps it: nobody needs it
// more. A short one is copied into a buffer of its own length, sooner than fresh storage is touched
// for the next; a longer one when so many run, besides it, that storage would be scarce.
[[nodiscard]] inline bool is_better_copied(std::size_t length, std::size_t storage_length,
                                           unsigned running) {
  constexpr std::size_t copied_gladly = 16 << 10;
  constexpr unsigned few = 4;
  return running > 0 &&
         (length <= copied_gladly || (running >= few && length <= storage_length / 2));
}

} // namespace bgfs
