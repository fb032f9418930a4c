// SPDX-License-Identifier: MIT
#include "graph/model/dirty_bits.h"

#include "graph/base/assert.h"
#include "graph/base/byte_range.h"

#include <algorithm>
#include <bit>

namespace bgfs {

namespace {

constexpr u64 word_bits = 64;

// Bits [first, first + length) of a word; length is not 0.
constexpr u64 mask(u64 first, u64 length) {
  return (length == word_bits ? ~u64{0} : (u64{1} << length) - 1) << first;
}

void put(std::vector<u64>& summary, u64 index, bool is_set) {
  const u64 bit = u64{1} << (index % word_bits);
  u64& word = summary[index / word_bits];
  word = is_set ? word | bit : word & ~bit;
}

std::optional<u64> next_in_summary(const std::vector<u64>& summary, u64 from) {
  for (u64 w = from / word_bits; w < summary.size(); w++) {
    const u64 skipped = w == from / word_bits ? from % word_bits : 0;
    if (const u64 left = summary[w] >> skipped << skipped; left != 0)
      return w * word_bits + static_cast<u64>(std::countr_zero(left));
  }
  return std::nullopt;
}

// Calls f(word, first bit in it, bits) for each word that the run touches.
template<class F>
void for_each_word(u64 first, u64 length, F f) {
  while (length > 0) {
    const u64 within = first % word_bits;
    const u64 part = std::min(length, word_bits - within);
    f(first / word_bits, mask(within, part));
    first += part;
    length -= part;
  }
}

} // namespace

dirty_bits::dirty_bits(const dirty_bits& other)
    : count_(other.count_), set_count_(other.set_count_), slots_(other.slots_.size()),
      has_set_(other.has_set_), has_clear_(other.has_clear_) {
  for (std::size_t i = 0; i < slots_.size(); i++) {
    slots_[i].set = other.slots_[i].set;
    if (other.slots_[i].words != nullptr)
      slots_[i].words = std::make_unique<chunk>(*other.slots_[i].words);
  }
}

dirty_bits& dirty_bits::operator=(const dirty_bits& other) {
  if (this != &other)
    *this = dirty_bits(other);
  return *this;
}

u64 dirty_bits::memory() const {
  u64 bytes = slots_.capacity() * sizeof(slot) +
              (has_set_.capacity() + has_clear_.capacity()) * sizeof(u64);
  for (const slot& s : slots_)
    bytes += s.words != nullptr ? sizeof(chunk) : 0;
  return bytes;
}

u64 dirty_bits::bits_in(u64 index) const {
  return std::min(chunk_bits, count_ - index * chunk_bits);
}

void dirty_bits::make_mixed(u64 index) {
  slot& s = slots_[index];
  if (s.words != nullptr)
    return;
  s.words = std::make_unique<chunk>();
  if (s.set != 0) // all of them
    for_each_word(0, s.set, [&](u64 w, u64 bits) { (*s.words)[w] |= bits; });
}

// After a change of its bits, or of how many it stands for: memory and summaries say what it is.
void dirty_bits::settle(u64 index) {
  slot& s = slots_[index];
  const bool is_full = s.set == bits_in(index);
  if (s.set == 0 || is_full)
    s.words.reset();
  put(has_set_, index, s.set != 0);
  put(has_clear_, index, !is_full);
}

u64 dirty_bits::set_in(u64 index, u64 first, u64 length) {
  slot& s = slots_[index];
  const u64 all = bits_in(index);
  if (s.set == all)
    return 0;
  u64 added = 0;
  if (length == all) {
    added = all - s.set;
  } else {
    make_mixed(index);
    for_each_word(first, length, [&](u64 w, u64 bits) {
      u64& word = (*s.words)[w];
      added += static_cast<u64>(std::popcount(bits & ~word));
      word |= bits;
    });
  }
  if (added == 0)
    return 0;
  const bool was_clear = s.set == 0;
  s.set += static_cast<u32>(added);
  if (was_clear || s.set == all)
    settle(index);
  return added;
}

void dirty_bits::reset_in(u64 index, u64 first, u64 length) {
  slot& s = slots_[index];
  if (s.set == 0)
    return;
  u64 removed = 0;
  if (length == bits_in(index)) {
    removed = s.set;
  } else {
    make_mixed(index);
    for_each_word(first, length, [&](u64 w, u64 bits) {
      u64& word = (*s.words)[w];
      removed += static_cast<u64>(std::popcount(bits & word));
      word &= ~bits;
    });
  }
  s.set -= static_cast<u32>(removed);
  set_count_ -= removed;
  settle(index);
}

u64 dirty_bits::set(u64 first, u64 length) {
  BGFS_ASSERT(first <= count_ && length <= count_ - first);
  if (slots_.empty() && length > 0) { // until now it was known to be clear as a whole
    const u64 chunks = divide_up(count_, chunk_bits);
    slots_.resize(chunks);
    has_set_.resize(divide_up(chunks, word_bits));
    has_clear_.resize(divide_up(chunks, word_bits));
    for (u64 i = 0; i < chunks; i++)
      settle(i);
  }
  u64 added = 0;
  while (length > 0) {
    const u64 index = first / chunk_bits;
    const u64 part = std::min(length, chunk_bits - first % chunk_bits);
    added += set_in(index, first % chunk_bits, part);
    first += part;
    length -= part;
  }
  set_count_ += added;
  return added;
}

void dirty_bits::reset(u64 first, u64 length) {
  BGFS_ASSERT(first <= count_ && length <= count_ - first);
  if (slots_.empty())
    return;
  while (length > 0) {
    const u64 part = std::min(length, chunk_bits - first % chunk_bits);
    reset_in(first / chunk_bits, first % chunk_bits, part);
    first += part;
    length -= part;
  }
}

void dirty_bits::reset_all() {
  const u64 count = count_;
  *this = dirty_bits();
  resize(count);
}

bool dirty_bits::test(u64 index) const {
  BGFS_ASSERT(index < count_);
  return (word(index / word_bits) >> (index % word_bits) & 1) != 0;
}

u64 dirty_bits::word(u64 index) const {
  const u64 at = index / words_per_chunk;
  if (at >= slots_.size())
    return 0;
  const slot& s = slots_[at];
  if (s.words != nullptr)
    return (*s.words)[index % words_per_chunk];
  const u64 first = index % words_per_chunk * word_bits;
  if (s.set <= first)
    return 0;
  return mask(0, std::min(word_bits, s.set - first));
}

std::optional<u64> dirty_bits::next_in(u64 index, u64 from, bool wants_set) const {
  const slot& s = slots_[index];
  const u64 end = bits_in(index);
  if (s.words == nullptr)
    return (s.set != 0) == wants_set ? std::optional(from) : std::nullopt;
  for (u64 w = from / word_bits; w * word_bits < end; w++) {
    const u64 skipped = w == from / word_bits ? from % word_bits : 0;
    const u64 bits = wants_set ? (*s.words)[w] : ~(*s.words)[w];
    const u64 left = bits >> skipped << skipped;
    if (left == 0)
      continue;
    const u64 found = w * word_bits + static_cast<u64>(std::countr_zero(left));
    return found < end ? std::optional(found) : std::nullopt;
  }
  return std::nullopt;
}

std::optional<u64> dirty_bits::next(u64 from, bool wants_set) const {
  if (from >= count_)
    return std::nullopt;
  if (slots_.empty())
    return wants_set ? std::nullopt : std::optional(from);
  const u64 first = from / chunk_bits;
  if (const auto found = next_in(first, from % chunk_bits, wants_set))
    return first * chunk_bits + *found;
  const auto other = next_in_summary(wants_set ? has_set_ : has_clear_, first + 1);
  if (!other)
    return std::nullopt;
  const auto found = next_in(*other, 0, wants_set);
  BGFS_ASSERT(found.has_value(), "the summaries say what the chunks hold");
  return *other * chunk_bits + *found;
}

void dirty_bits::resize(u64 count) {
  if (count < count_)
    reset(count, count_ - count);
  if (slots_.empty()) {
    count_ = count;
    return;
  }
  const u64 last = count_ == 0 ? 0 : (count_ - 1) / chunk_bits;
  // One that was full up to the old end is not any more.
  if (count > count_ && count_ % chunk_bits != 0)
    make_mixed(last);
  const u64 chunks = divide_up(count, chunk_bits);
  const u64 before = slots_.size();
  count_ = count;
  slots_.resize(chunks);
  has_set_.resize(divide_up(chunks, word_bits));
  has_clear_.resize(divide_up(chunks, word_bits));
  for (u64 i = std::min({before, chunks, last}); i < chunks; i++)
    settle(i);
  // What the summaries say of chunks that are gone.
  for (u64 i = chunks; i < has_set_.size() * word_bits; i++) {
    put(has_set_, i, false);
    put(has_clear_, i, false);
  }
}

u64 dirty_bits::merge(const dirty_bits& other) {
  BGFS_ASSERT(count_ == other.count_, "sets of one count are merged");
  u64 added = 0;
  for (u64 i = 0; i < other.slots_.size(); i++) {
    const slot& theirs = other.slots_[i];
    if (theirs.set == 0)
      continue;
    if (theirs.words == nullptr) {
      added += set(i * chunk_bits, bits_in(i));
      continue;
    }
    for (u64 w = 0; w < words_per_chunk; w++)
      added += merge_word(i * words_per_chunk + w, (*theirs.words)[w]);
  }
  return added;
}

u64 dirty_bits::merge_word(u64 index, u64 bits) {
  u64 added = 0;
  const u64 base = index * word_bits;
  if (bits == 0 || base >= count_)
    return 0;
  bits &= mask(0, std::min(word_bits, count_ - base));
  while (bits != 0) {
    const auto from = static_cast<u64>(std::countr_zero(bits));
    const auto length = static_cast<u64>(std::countr_one(bits >> from));
    added += set(base + from, length);
    bits &= ~mask(from, length);
  }
  return added;
}

dirty_bits::uniformity dirty_bits::uniformity_of(u64 first, u64 length) const {
  const u64 end = first + length;
  const u64 set_at = next_set(first).value_or(end);
  if (set_at >= end)
    return uniformity::clear;
  const u64 clear_at = next_clear(first).value_or(end);
  return clear_at >= end ? uniformity::set : uniformity::mixed;
}

void dirty_bits::serialise(u64 first, std::span<std::byte> into) const {
  BGFS_ASSERT(first % 8 == 0);
  for (std::size_t i = 0; i < into.size(); i++) {
    const u64 bit = first + i * 8;
    into[i] = static_cast<std::byte>(word(bit / word_bits) >> (bit % word_bits));
  }
}

u64 dirty_bits::merge_bytes(u64 first, std::span<const std::byte> bytes) {
  BGFS_ASSERT(first % 8 == 0);
  u64 added = 0;
  for (std::size_t i = 0; i < bytes.size();) {
    const u64 bit = first + i * 8;
    u64 bits = 0;
    do {
      bits |= std::to_integer<u64>(bytes[i]) << ((first + i * 8) % word_bits);
      i++;
    } while (i < bytes.size() && (first + i * 8) % word_bits != 0);
    added += merge_word(bit / word_bits, bits);
  }
  return added;
}

bool operator==(const dirty_bits& a, const dirty_bits& b) {
  if (a.count_ != b.count_ || a.set_count_ != b.set_count_)
    return false;
  for (u64 i = 0; a.set_count_ != 0 && i < a.slots_.size(); i++) {
    const auto &x = a.slots_[i], &y = b.slots_[i];
    if (x.set != y.set || (x.words != nullptr && *x.words != *y.words))
      return false;
  }
  return true;
}

} // namespace bgfs
