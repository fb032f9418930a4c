// SPDX-License-Identifier: MIT
// Field types for wire structs: bytes in a fixed order, without alignment, converted when read or
// assigned. A wire struct is copied from and to buffers with load<T> and store; never by a cast.
#pragma once

#include "graph/base/ints.h"

#include <array>
#include <bit>
#include <cassert>
#include <concepts>
#include <cstring>
#include <span>
#include <type_traits>

namespace bgfs {

template<std::unsigned_integral T, std::endian Order>
class endian_field {
public:
  constexpr endian_field() = default;
  constexpr endian_field(T value) { *this = value; } // NOLINT: a field is assigned like a number
  constexpr endian_field& operator=(T value) {
    bytes_ = std::bit_cast<std::array<u8, sizeof(T)>>(swapped(value));
    return *this;
  }
  constexpr operator T() const { return swapped(std::bit_cast<T>(bytes_)); } // NOLINT
  [[nodiscard]] constexpr T get() const { return *this; }

private:
  static constexpr T swapped(T value) {
    if constexpr (sizeof(T) == 1 || Order == std::endian::native) {
      return value;
    } else {
      return std::byteswap(value);
    }
  }
  std::array<u8, sizeof(T)> bytes_{};
};

using be16 = endian_field<u16, std::endian::big>;
using be32 = endian_field<u32, std::endian::big>;
using be64 = endian_field<u64, std::endian::big>;
using le16 = endian_field<u16, std::endian::little>;
using le32 = endian_field<u32, std::endian::little>;
using le64 = endian_field<u64, std::endian::little>;

// Copies a wire struct out of a buffer. The caller has checked that `offset + sizeof(T)` fits.
template<class T>
  requires std::is_trivially_copyable_v<T>
[[nodiscard]] T load(std::span<const std::byte> bytes, std::size_t offset = 0) {
  assert(offset <= bytes.size());
  assert(sizeof(T) <= bytes.size() - offset);
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

template<class T>
  requires std::is_trivially_copyable_v<T>
void store(std::span<std::byte> bytes, const T& value, std::size_t offset = 0) {
  assert(offset <= bytes.size());
  assert(sizeof(T) <= bytes.size() - offset);
  std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

} // namespace bgfs
