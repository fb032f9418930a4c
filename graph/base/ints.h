// SPDX-License-Identifier: MIT
// Short names for the fixed-width integers that on-disk formats are written in.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bgfs {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;

inline constexpr u64 KiB = 1024;
inline constexpr u64 MiB = 1024 * KiB;
inline constexpr u64 GiB = 1024 * MiB;
inline constexpr u64 TiB = 1024 * GiB;

} // namespace bgfs
