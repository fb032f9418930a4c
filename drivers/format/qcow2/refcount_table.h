// SPDX-License-Identifier: MIT
// The refcount table in memory: where each refcount block lies. On the disk it fills whole
// clusters, which of a small image are almost empty; here only the pieces with an entry take space.
#pragma once

#include "graph/base/assert.h"
#include "graph/base/ints.h"

#include <algorithm>
#include <array>
#include <map>

namespace bgfs::qcow2 {

class refcount_table {
public:
  // Entries that are added are 0: no block. It never becomes shorter.
  void resize(u64 count) {
    BGFS_ASSERT(count >= count_);
    count_ = count;
  }
  [[nodiscard]] u64 size() const { return count_; }

  [[nodiscard]] u64 operator[](u64 index) const {
    BGFS_ASSERT(index < count_);
    const auto found = pieces_.find(index / piece_length);
    return found == pieces_.end() ? 0 : found->second[index % piece_length];
  }
  void set(u64 index, u64 block) {
    BGFS_ASSERT(index < count_);
    if (block != 0 || (*this)[index] != 0)
      pieces_[index / piece_length][index % piece_length] = block;
  }
  // Calls visit(index, block) for every entry that names a block, in order.
  template<class Visit>
  void for_each(Visit visit) const {
    for (const auto& [number, piece] : pieces_)
      for (u64 i = 0; i < piece_length; i++)
        if (piece[i] != 0)
          visit(number * piece_length + i, piece[i]);
  }
  [[nodiscard]] std::size_t piece_count() const { return pieces_.size(); }

private:
  static constexpr u64 piece_length = 64;
  std::map<u64, std::array<u64, piece_length>> pieces_;
  u64 count_ = 0;
};

} // namespace bgfs::qcow2
