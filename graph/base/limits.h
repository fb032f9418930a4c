// SPDX-License-Identifier: MIT
// What a node asks of the requests it is given (reference section 1.9). Zero means no limit.
#pragma once

#include "graph/base/byte_range.h"

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

// Takes into `limits` what a child of role data, filtered or backing demands. has_variable_length
// is taken only from a filtered child.
void merge_child_limits(block_limits& limits, const block_limits& child, bool is_filtered = false);
// Puts defaults where no child had a say, and makes the fields agree with each other.
void settle_limits(block_limits& limits);

// The longest read or write that is passed on in one piece.
[[nodiscard]] u64 transfer_step(const block_limits& limits);

// What is passed to a device as it is, without our splitting it (SCSI commands): no more than the
// node takes anyway.
[[nodiscard]] u64 hardware_transfer_max(const block_limits& limits);
[[nodiscard]] u32 hardware_vectors_max(const block_limits& limits);

// How zero writes and discards are taken apart: a head up to the first boundary of `unit`, pieces
// of whole units, a tail; none longer than `step`.
struct piece_rule {
  u64 unit;
  u64 step;
  [[nodiscard]] u64 length_of_first(byte_range left) const;
};
[[nodiscard]] piece_rule zero_pieces(const block_limits& limits);
[[nodiscard]] piece_rule discard_pieces(const block_limits& limits);

} // namespace bgfs
