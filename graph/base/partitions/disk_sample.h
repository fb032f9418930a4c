// SPDX-License-Identifier: MIT
// What has been read of a disk so far, for code that looks at a few places of it and does no I/O
// itself. Such a function returns sampled<T>: its value, or the range it has to see first. Its
// caller reads that, adds it, and calls again, until there is a value:
//
//   while (true) {
//     auto found = scan_partition_table(sample);
//     if (found) ...
//     sample.add(found.error(), bytes of that range);
//   }
//
// A function asks for the same ranges in the same order each time, and for a bounded number of
// them.
#pragma once

#include "graph/base/byte_range.h"

#include <cstddef>
#include <expected>
#include <map>
#include <span>
#include <vector>

namespace bgfs {

template<class T>
using sampled = std::expected<T, byte_range>;

class disk_sample {
public:
  explicit disk_sample(u64 disk_length) : disk_length_(disk_length) {}

  [[nodiscard]] u64 disk_length() const { return disk_length_; }
  // `range`, which is not empty, lies inside the disk. An empty span: it cannot be read.
  [[nodiscard]] sampled<std::span<const std::byte>> bytes(byte_range range) const;
  // What bytes() asked for, whole; empty: it could not be read.
  void add(byte_range range, std::vector<std::byte> bytes);

  // Everything that was asked for: as long as these bytes are the same, so is what was made of
  // them.
  [[nodiscard]] std::vector<byte_range> ranges() const;
  [[nodiscard]] bool overlaps(byte_range range) const;
  friend bool operator==(const disk_sample&, const disk_sample&) = default;

private:
  u64 disk_length_;
  std::map<byte_range, std::vector<std::byte>> parts_;
};

} // namespace bgfs
