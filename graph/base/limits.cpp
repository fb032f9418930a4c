// SPDX-License-Identifier: MIT
#include "graph/base/limits.h"

#include <algorithm>
#include <concepts>

namespace bgfs {

namespace {

// The smaller of two limits of which 0 means none.
template<std::unsigned_integral T>
T tighter(T a, T b) {
  if (a == 0 || b == 0)
    return std::max(a, b);
  return std::min(a, b);
}

} // namespace

// request_alignment, the discard and zero maxima and the zero alignment are the driver's own
// decision.
void merge_child_limits(block_limits& limits, const block_limits& child, bool is_filtered) {
  limits.discard_alignment = std::max(limits.discard_alignment, child.discard_alignment);
  limits.opt_transfer = std::max(limits.opt_transfer, child.opt_transfer);
  limits.max_transfer = tighter(limits.max_transfer, child.max_transfer);
  limits.max_hw_transfer = tighter(limits.max_hw_transfer, child.max_hw_transfer);
  limits.max_hw_vectors = tighter(limits.max_hw_vectors, child.max_hw_vectors);
  limits.min_memory_alignment = std::max(limits.min_memory_alignment, child.min_memory_alignment);
  limits.opt_memory_alignment = std::max(limits.opt_memory_alignment, child.opt_memory_alignment);
  limits.max_vectors = tighter(limits.max_vectors, child.max_vectors);
  if (is_filtered)
    limits.has_variable_length = limits.has_variable_length || child.has_variable_length;
}

void settle_limits(block_limits& limits) {
  constexpr block_limits defaults;
  if (limits.min_memory_alignment == 0)
    limits.min_memory_alignment = defaults.min_memory_alignment;
  if (limits.opt_memory_alignment == 0)
    limits.opt_memory_alignment = defaults.opt_memory_alignment;
  if (limits.max_vectors == 0)
    limits.max_vectors = defaults.max_vectors;
  // A child may want larger units than this node's blocks, or smaller ones that say nothing.
  const u32 block = limits.request_alignment;
  if (limits.discard_alignment != 0)
    limits.discard_alignment = static_cast<u32>(align_up(limits.discard_alignment, block));
  if (limits.write_zeroes_alignment != 0)
    limits.write_zeroes_alignment =
        static_cast<u32>(align_up(limits.write_zeroes_alignment, block));
  if (limits.max_transfer != 0)
    limits.max_transfer = std::min(limits.max_transfer, request_length_max);
  if (limits.max_hw_transfer != 0)
    limits.max_hw_transfer = std::min(limits.max_hw_transfer, request_length_max);
  limits.opt_transfer = std::min(limits.opt_transfer, request_length_max);
}

u64 transfer_step(const block_limits& limits) {
  const u64 block = limits.request_alignment;
  const u64 longest = limits.max_transfer != 0 ? limits.max_transfer : request_length_max;
  const u64 wanted = limits.opt_transfer;
  if (wanted != 0 && wanted <= longest && is_aligned(wanted, block))
    return align_down(longest, wanted);
  return std::max(align_down(longest, block), block);
}

u64 hardware_transfer_max(const block_limits& limits) {
  return tighter(limits.max_hw_transfer, limits.max_transfer);
}

u32 hardware_vectors_max(const block_limits& limits) {
  return tighter(limits.max_hw_vectors, limits.max_vectors);
}

namespace {

piece_rule make_rule(u64 block, u64 wanted_unit, u64 longest) {
  const u64 unit = wanted_unit != 0 && is_aligned(wanted_unit, block) ? wanted_unit : block;
  if (longest == 0)
    longest = device_length_max;
  const u64 granule = longest < unit ? block : unit;
  return {unit, std::max(align_down(longest, granule), granule)};
}

} // namespace

u64 piece_rule::length_of_first(byte_range left) const {
  const u64 length = std::min(left.length, step);
  if (left.offset % unit != 0)
    return std::min(length, unit - left.offset % unit);     // the head
  return length > unit ? align_down(length, unit) : length; // the middle; the tail comes next
}

piece_rule zero_pieces(const block_limits& limits) {
  return make_rule(limits.request_alignment, limits.write_zeroes_alignment,
                   limits.max_write_zeroes);
}

piece_rule discard_pieces(const block_limits& limits) {
  return make_rule(limits.request_alignment, limits.discard_alignment, limits.max_discard);
}

} // namespace bgfs
