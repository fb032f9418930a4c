// SPDX-License-Identifier: MIT
#include "graph/base/partitions/disk_sample.h"

#include "graph/base/assert.h"

#include <algorithm>

namespace bgfs {

sampled<std::span<const std::byte>> disk_sample::bytes(byte_range range) const {
  BGFS_ASSERT(!range.is_empty(), "a sample has bytes");
  BGFS_ASSERT(byte_range(0, disk_length_).contains(range), "a sample lies inside the disk");
  const auto known = parts_.find(range);
  if (known == parts_.end())
    return std::unexpected(range);
  return std::span<const std::byte>(known->second);
}

void disk_sample::add(byte_range range, std::vector<std::byte> bytes) {
  BGFS_ASSERT(bytes.empty() || bytes.size() == range.length, "all of the range, or nothing");
  parts_.insert_or_assign(range, std::move(bytes));
}

std::vector<byte_range> disk_sample::ranges() const {
  std::vector<byte_range> all;
  for (const auto& [range, bytes] : parts_)
    all.push_back(range);
  return all;
}

bool disk_sample::overlaps(byte_range range) const {
  return std::ranges::any_of(parts_, [&](const auto& p) { return p.first.overlaps(range); });
}

} // namespace bgfs
