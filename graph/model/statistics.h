// SPDX-License-Identifier: MIT
// What was done to a node since it was opened: counts, bytes, time, and how long requests took.
#pragma once

#include "graph/base/ints.h"

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <optional>
#include <string_view>

namespace bgfs {

enum class operation : u8 { read, write, zero, discard, flush };
inline constexpr std::array all_operations = {operation::read, operation::write, operation::zero,
                                              operation::discard, operation::flush};
[[nodiscard]] std::string_view to_string(operation kind);

// How many requests took how long: bin 0 holds those under a microsecond, bin i those from 2^(i-1)
// to under 2^i microseconds, the last one all that took longer.
struct latency_histogram {
  static constexpr std::size_t bin_count = 26; // the last begins at 2^24 us, 16.8 s
  std::array<u64, bin_count> bins{};

  [[nodiscard]] static constexpr std::size_t bin_of(u64 nanoseconds) {
    return std::min<std::size_t>(std::bit_width(nanoseconds / 1000), bin_count - 1);
  }
  void add(u64 nanoseconds) { bins[bin_of(nanoseconds)]++; }
  // The first nanosecond that does not belong to bin `index`; not for the last bin.
  [[nodiscard]] static constexpr u64 boundary_of(std::size_t index) { return 1000ULL << index; }
};

struct operation_statistics {
  u64 count = 0; // that succeeded
  u64 bytes = 0; // of those
  u64 failed = 0;
  u64 invalid = 0; // refused without being tried: out of range, read-only
  u64 time_ns = 0; // spent on those that succeeded or failed, in sum
  latency_histogram latency;
};

struct node_statistics {
  std::array<operation_statistics, all_operations.size()> operations;
  u64 merged_flushes = 0; // found that nothing was written since the last one
  u64 write_highest_offset = 0;
  std::optional<std::chrono::steady_clock::time_point> last_access;

  [[nodiscard]] operation_statistics& of(operation kind) {
    return operations[static_cast<std::size_t>(kind)];
  }
  [[nodiscard]] const operation_statistics& of(operation kind) const {
    return operations[static_cast<std::size_t>(kind)];
  }
};

} // namespace bgfs
