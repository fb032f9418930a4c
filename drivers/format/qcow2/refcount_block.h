// SPDX-License-Identifier: MIT
// Reference counts as they are packed into a refcount block (spec, "Host cluster management"):
// 1 to 64 bits wide, big endian from 16 bits on, from the low bits of a byte upwards below 8.
#pragma once

#include "graph/base/endian.h"

#include <span>

namespace bgfs::qcow2 {

// `order` is the header's refcount_order; `index` is within the block.
[[nodiscard]] inline u64 load_refcount(std::span<const std::byte> block, unsigned order,
                                       u64 index) {
  switch (order) {
  case 6:
    return load<be64>(block, index * 8);
  case 5:
    return load<be32>(block, index * 4);
  case 4:
    return load<be16>(block, index * 2);
  case 3:
    return std::to_integer<u8>(block[index]);
  default: {
    const unsigned bits = 1u << order;
    const unsigned per_byte = 8 / bits;
    const unsigned shift = static_cast<unsigned>(index % per_byte) * bits;
    return std::to_integer<unsigned>(block[index / per_byte]) >> shift & ((1u << bits) - 1);
  }
  }
}

// `value` fits the width.
inline void store_refcount(std::span<std::byte> block, unsigned order, u64 index, u64 value) {
  switch (order) {
  case 6:
    store(block, be64(value), index * 8);
    return;
  case 5:
    store(block, be32(static_cast<u32>(value)), index * 4);
    return;
  case 4:
    store(block, be16(static_cast<u16>(value)), index * 2);
    return;
  case 3:
    block[index] = static_cast<std::byte>(value);
    return;
  default: {
    const unsigned bits = 1u << order;
    const unsigned per_byte = 8 / bits;
    const unsigned shift = static_cast<unsigned>(index % per_byte) * bits;
    const unsigned mask = ((1u << bits) - 1) << shift;
    const auto old = std::to_integer<unsigned>(block[index / per_byte]);
    block[index / per_byte] =
        static_cast<std::byte>((old & ~mask) | static_cast<unsigned>(value) << shift);
  }
  }
}

} // namespace bgfs::qcow2
