// SPDX-License-Identifier: MIT
// A half-open range of bytes, [offset, offset + length).
#pragma once

#include "graph/base/checked.h"

#include <algorithm>
#include <compare>

namespace bgfs {

struct byte_range {
  u64 offset = 0;
  u64 length = 0;

  [[nodiscard]] static constexpr byte_range between(u64 begin, u64 end) {
    return {begin, end - begin};
  }
  // Cannot overflow for a range that passed check_request (graph/model/request.h).
  [[nodiscard]] constexpr u64 end() const { return offset + length; }
  [[nodiscard]] constexpr bool is_empty() const { return length == 0; }
  [[nodiscard]] constexpr bool overlaps(byte_range other) const {
    return offset < other.end() && other.offset < end();
  }
  [[nodiscard]] constexpr bool contains(byte_range other) const {
    return offset <= other.offset && other.end() <= end();
  }
  [[nodiscard]] constexpr bool contains(u64 position) const {
    return offset <= position && position < end();
  }
  // The common part; empty, at the larger of both offsets, when there is none.
  [[nodiscard]] constexpr byte_range intersection(byte_range other) const {
    const u64 begin = std::max(offset, other.offset);
    return {begin, std::max(begin, std::min(end(), other.end())) - begin};
  }
  // The smallest range with both ends on multiples of `unit` that covers this one.
  [[nodiscard]] constexpr byte_range widened_to(u64 unit) const {
    return between(align_down(offset, unit), align_up(end(), unit));
  }
  [[nodiscard]] constexpr bool is_aligned_to(u64 unit) const {
    return is_aligned(offset, unit) && is_aligned(length, unit);
  }
  friend constexpr auto operator<=>(byte_range, byte_range) = default;
};

} // namespace bgfs
