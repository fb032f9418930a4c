// SPDX-License-Identifier: MIT
// A set of numbers that, once it is sealed, says how many of them lie before one, and which is the
// n-th. A bit for each number, and an eighth more for the counts.
#pragma once

#include "graph/base/checked.h"

#include <vector>

namespace bgfs::qcow2 {

class ranked_bits {
public:
  explicit ranked_bits(u64 count) : words_(divide_up(count, word_bits)) {}

  void set(u64 index) { words_[index / word_bits] |= u64{1} << index % word_bits; }
  void set_run(u64 first, u64 count);
  void seal();
  [[nodiscard]] bool test(u64 index) const {
    return (words_[index / word_bits] >> index % word_bits & 1) != 0;
  }
  [[nodiscard]] u64 set_count() const { return total_; }
  // How many are set below `index`, which may be one past the last.
  [[nodiscard]] u64 rank(u64 index) const;
  // The number that has `rank` set ones before it; rank < set_count().
  [[nodiscard]] u64 select(u64 rank) const;

private:
  static constexpr u64 word_bits = 64;
  static constexpr u64 block_words = 8; // that one count is kept for
  std::vector<u64> words_;
  std::vector<u64> before_; // set bits before each block
  u64 total_ = 0;
};

} // namespace bgfs::qcow2
