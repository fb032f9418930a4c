// SPDX-License-Identifier: MIT
// Offsets that cannot be mixed up. A format driver translates guest offsets (positions in the disk
// that the image represents) to host offsets (positions in the file that holds it); adding one to
// the other, or passing one for the other, does not compile.
#pragma once

#include "graph/base/checked.h"

#include <compare>

namespace bgfs {

template<class Tag>
struct strong_offset {
  u64 value = 0;

  constexpr strong_offset() = default;
  explicit constexpr strong_offset(u64 v) : value(v) {}

  friend constexpr auto operator<=>(strong_offset, strong_offset) = default;
  friend constexpr strong_offset operator+(strong_offset a, u64 length) {
    return strong_offset(a.value + length);
  }
  friend constexpr strong_offset operator-(strong_offset a, u64 length) {
    return strong_offset(a.value - length);
  }
  friend constexpr u64 operator-(strong_offset a, strong_offset b) { return a.value - b.value; }
  constexpr strong_offset& operator+=(u64 length) {
    value += length;
    return *this;
  }
  [[nodiscard]] constexpr u64 within(u64 unit) const { return value % unit; }
  [[nodiscard]] constexpr strong_offset aligned_down(u64 unit) const {
    return strong_offset(align_down(value, unit));
  }
  [[nodiscard]] constexpr bool is_aligned_to(u64 unit) const { return is_aligned(value, unit); }
};

using guest_offset = strong_offset<struct guest_tag>;
using host_offset = strong_offset<struct host_tag>;

} // namespace bgfs
