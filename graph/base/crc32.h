// SPDX-License-Identifier: MIT
// CRC-32 as of ISO 3309 (polynomial 0x04c11db7, reflected): the checksum of GPT headers. For small
// amounts of metadata, a byte at a time.
#pragma once

#include "graph/base/ints.h"

#include <array>
#include <cstddef>
#include <span>

namespace bgfs {

namespace internal {
constexpr std::array<u32, 256> make_crc32_table() {
  std::array<u32, 256> table{};
  for (u32 i = 0; i < table.size(); i++) {
    u32 rest = i;
    for (int bit = 0; bit < 8; bit++)
      rest = (rest >> 1) ^ ((rest & 1) != 0 ? 0xedb88320u : 0u);
    table[i] = rest;
  }
  return table;
}
inline constexpr std::array<u32, 256> crc32_table = make_crc32_table();
} // namespace internal

[[nodiscard]] constexpr u32 crc32_of(std::span<const std::byte> bytes) {
  u32 crc = ~u32{0};
  for (const std::byte b : bytes)
    crc = (crc >> 8) ^ internal::crc32_table[(crc ^ static_cast<u32>(b)) & 0xff];
  return ~crc;
}

} // namespace bgfs
