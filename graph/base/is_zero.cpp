// SPDX-License-Identifier: MIT
#include "graph/base/is_zero.h"

#include "graph/base/ints.h"

#include <array>
#include <cstring>

namespace bgfs {

namespace {

// Enough words for several vectors of the widest kind, so that the compiler loads and joins them
// with one test at the end.
constexpr std::size_t block_length = 256;

[[gnu::always_inline]] inline bool is_zero_by_blocks(std::span<const std::byte> bytes) {
  while (bytes.size() >= block_length) {
    std::array<u64, block_length / sizeof(u64)> words;
    std::memcpy(words.data(), bytes.data(), block_length);
    u64 all = 0;
    for (const u64 word : words)
      all |= word;
    if (all != 0)
      return false;
    bytes = bytes.subspan(block_length);
  }
  u64 all = 0;
  for (; bytes.size() >= sizeof(u64); bytes = bytes.subspan(sizeof(u64))) {
    u64 word = 0;
    std::memcpy(&word, bytes.data(), sizeof word);
    all |= word;
  }
  for (const std::byte left : bytes)
    all |= static_cast<u64>(left);
  return all == 0;
}

#if defined(__x86_64__)
// The same loop, compiled for vectors twice as wide.
[[gnu::target("avx2")]] bool is_zero_avx2(std::span<const std::byte> bytes) {
  return is_zero_by_blocks(bytes);
}
#endif

} // namespace

bool is_zero(std::span<const std::byte> bytes) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2"))
    return is_zero_avx2(bytes);
#endif
  return is_zero_by_blocks(bytes);
}

} // namespace bgfs
