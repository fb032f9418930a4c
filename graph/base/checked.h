// SPDX-License-Identifier: MIT
// Arithmetic on numbers that came from a disk, a network or a user: it says when it overflowed.
#pragma once

#include "graph/base/ints.h"

#include <bit>
#include <concepts>
#include <optional>

namespace bgfs {

template<std::integral T>
[[nodiscard]] constexpr std::optional<T> checked_add(T a, T b) {
  T sum;
  if (__builtin_add_overflow(a, b, &sum))
    return std::nullopt;
  return sum;
}

template<std::integral T>
[[nodiscard]] constexpr std::optional<T> checked_mul(T a, T b) {
  T product;
  if (__builtin_mul_overflow(a, b, &product))
    return std::nullopt;
  return product;
}

[[nodiscard]] constexpr bool is_power_of_two(u64 value) {
  return std::has_single_bit(value);
}

// `unit` is any non-zero number, not only a power of two.
[[nodiscard]] constexpr bool is_aligned(u64 value, u64 unit) {
  return value % unit == 0;
}
[[nodiscard]] constexpr u64 align_down(u64 value, u64 unit) {
  return value - value % unit;
}
[[nodiscard]] constexpr u64 divide_up(u64 value, u64 unit) {
  return value / unit + (value % unit != 0);
}
// The caller knows that the result fits; for untrusted numbers use checked_align_up.
[[nodiscard]] constexpr u64 align_up(u64 value, u64 unit) {
  return divide_up(value, unit) * unit;
}
[[nodiscard]] constexpr std::optional<u64> checked_align_up(u64 value, u64 unit) {
  return checked_mul(divide_up(value, unit), unit);
}

} // namespace bgfs
