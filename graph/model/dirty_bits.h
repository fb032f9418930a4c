// SPDX-License-Identifier: MIT
// A set of numbers 0 to count() - 1, as a dirty bitmap needs it: large, mostly uniform, set in runs
// and searched for runs. A pure value.
//
// It is cut into chunks. One whose bits are all the same takes no memory but its slot; above the
// slots two summaries say which chunks have a set bit and which a clear one, so that searches pass
// 64 uniform chunks with each look. A chunk's memory is taken when it is first mixed.
#pragma once

#include "graph/base/ints.h"

#include <array>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace bgfs {

class dirty_bits {
public:
  static constexpr u64 chunk_bits = 32768; // 4 KiB of memory each

  explicit dirty_bits(u64 count = 0) { resize(count); }
  dirty_bits(const dirty_bits& other);
  dirty_bits& operator=(const dirty_bits& other);
  dirty_bits(dirty_bits&&) noexcept = default;
  dirty_bits& operator=(dirty_bits&&) noexcept = default;
  ~dirty_bits() = default;

  [[nodiscard]] u64 count() const { return count_; }
  [[nodiscard]] u64 set_count() const { return set_count_; }
  // Bytes, without the object itself.
  [[nodiscard]] u64 memory() const;

  // Runs lie inside count(). `set` returns how many were clear before.
  u64 set(u64 first, u64 length);
  void reset(u64 first, u64 length);
  void reset_all();
  [[nodiscard]] bool test(u64 index) const;
  // At or after `from`; nullopt: there is none.
  [[nodiscard]] std::optional<u64> next_set(u64 from) const { return next(from, true); }
  [[nodiscard]] std::optional<u64> next_clear(u64 from) const { return next(from, false); }
  // What is added is clear.
  void resize(u64 count);
  // Union with one of the same count; returns how many were clear before.
  u64 merge(const dirty_bits& other);

  enum class uniformity : u8 { clear, set, mixed };
  [[nodiscard]] uniformity uniformity_of(u64 first, u64 length) const;

  // Bit i of a byte string is bit i % 8, counted from the lowest, of byte i / 8. `first` is a
  // multiple of 8; what lies past count() is written as zero and ignored when it is read.
  void serialise(u64 first, std::span<std::byte> into) const;
  u64 merge_bytes(u64 first, std::span<const std::byte> bytes);

  friend bool operator==(const dirty_bits& a, const dirty_bits& b);

private:
  static constexpr u64 words_per_chunk = chunk_bits / 64;
  using chunk = std::array<u64, words_per_chunk>;
  struct slot {
    std::unique_ptr<chunk> words; // of a mixed one
    u32 set = 0;                  // bits
  };
  [[nodiscard]] u64 bits_in(u64 index) const; // that the chunk stands for
  [[nodiscard]] u64 word(u64 index) const;    // of the whole set; bits past the end are clear
  u64 set_in(u64 index, u64 first, u64 length);
  void reset_in(u64 index, u64 first, u64 length);
  void make_mixed(u64 index);
  void settle(u64 index);
  u64 merge_word(u64 index, u64 bits);
  [[nodiscard]] std::optional<u64> next(u64 from, bool wants_set) const;
  [[nodiscard]] std::optional<u64> next_in(u64 index, u64 from, bool wants_set) const;

  u64 count_ = 0;
  u64 set_count_ = 0;
  std::vector<slot> slots_;
  std::vector<u64> has_set_;   // a bit for each chunk
  std::vector<u64> has_clear_; // likewise
};

} // namespace bgfs
