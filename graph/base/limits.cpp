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
// decision; has_variable_length goes up through filters only, which the caller knows.
void merge_child_limits(block_limits& limits, const block_limits& child) {
  limits.discard_alignment = std::max(limits.discard_alignment, child.discard_alignment);
  limits.opt_transfer = std::max(limits.opt_transfer, child.opt_transfer);
  limits.max_transfer = tighter(limits.max_transfer, child.max_transfer);
  limits.max_hw_transfer = tighter(limits.max_hw_transfer, child.max_hw_transfer);
  limits.max_hw_vectors = tighter(limits.max_hw_vectors, child.max_hw_vectors);
  limits.min_memory_alignment = std::max(limits.min_memory_alignment, child.min_memory_alignment);
  limits.opt_memory_alignment = std::max(limits.opt_memory_alignment, child.opt_memory_alignment);
  limits.max_vectors = tighter(limits.max_vectors, child.max_vectors);
}

} // namespace bgfs
