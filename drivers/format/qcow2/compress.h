// SPDX-License-Identifier: MIT
// Making compressed clusters (spec, "Compressed Clusters Descriptor"). Pure: runs on any thread,
// each instance on one at a time.
#pragma once

#include "drivers/format/qcow2/header.h"

#include <memory>

namespace bgfs::qcow2 {

// What one compression takes to set up is kept for the next.
class compressor {
public:
  virtual ~compressor() = default;
  // nullptr: there is no memory.
  [[nodiscard]] static std::unique_ptr<compressor> make(compression_type type);
  // Writes a stream that makes `cluster` and returns its length; 0: it does not fit `stream`.
  [[nodiscard]] virtual std::size_t compress(std::span<const std::byte> cluster,
                                             std::span<std::byte> stream) = 0;
};

} // namespace bgfs::qcow2
