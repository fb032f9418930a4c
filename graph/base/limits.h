// SPDX-License-Identifier: MIT
// What a node asks of the requests it is given (reference section 1.9). Zero means no limit.
#pragma once

#include "graph/base/ints.h"

namespace bgfs {

// No device is longer, no offset plus length larger: INT64_MAX rounded down to 1 GiB.
inline constexpr u64 device_length_max = (~u64{0} >> 1) / GiB * GiB;
// One read or write with a buffer.
inline constexpr u64 request_length_max = (u64{1} << 31) - 512;
inline constexpr u64 alignment_max = GiB;
// Buffers of emulated zero writes and of copies.
inline constexpr u64 bounce_length_max = 16 * MiB;

struct block_limits {
  u32 request_alignment = 1;
  u64 max_discard = 0;
  u32 discard_alignment = 0;
  u64 max_write_zeroes = 0;
  u32 write_zeroes_alignment = 0;
  u64 opt_transfer = 0;
  u64 max_transfer = 0;
  u64 max_hw_transfer = 0;
  u32 max_hw_vectors = 0;
  u32 min_memory_alignment = 512;
  u32 opt_memory_alignment = 4096;
  u32 max_vectors = 1024;
  bool has_variable_length = false;

  friend bool operator==(const block_limits&, const block_limits&) = default;
};

// Takes into `limits` what a child of role data, filtered or backing demands.
void merge_child_limits(block_limits& limits, const block_limits& child);

} // namespace bgfs
