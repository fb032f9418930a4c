// SPDX-License-Identifier: MIT
#pragma once

#include "graph/base/ints.h"

namespace bgfs::test {

#ifdef BGFS_SANITIZED
inline constexpr bool is_sanitized = true;
#else
inline constexpr bool is_sanitized = false;
#endif

// How many of the `whole` repetitions of a random test (seeds, as a rule) this build makes: all of
// them, or the first where a sanitizer makes each many times as long. tests/run has both kinds of
// build run the same cases.
[[nodiscard]] constexpr u64 repetitions(u64 whole) {
  return is_sanitized && whole > 1 ? 1 : whole;
}

} // namespace bgfs::test
