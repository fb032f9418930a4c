// SPDX-License-Identifier: MIT
// Assertions about our own code, on in every build: an image is somebody's data, and going on with
// a broken invariant is how it gets lost. Bytes from disk, YAML or network are never asserted.
#pragma once

#include <source_location>

namespace bgfs {

[[noreturn]] void assertion_failed(const char* claim, std::source_location where);

} // namespace bgfs

// BGFS_ASSERT(count > 0, "M3"): the text names the invariant or says what would go wrong.
#define BGFS_ASSERT(condition, ...)                                                                \
  do {                                                                                             \
    if (!(condition)) [[unlikely]]                                                                 \
      ::bgfs::assertion_failed(#condition __VA_OPT__(" (" __VA_ARGS__ ")"),                        \
                               std::source_location::current());                                   \
  } while (false)
