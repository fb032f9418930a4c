// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/increment/ranked_bits.h"

#include <algorithm>
#include <bit>

namespace bgfs::qcow2 {

namespace {
u64 ones(u64 word) {
  return static_cast<u64>(std::popcount(word));
}
} // namespace

void ranked_bits::set_run(u64 first, u64 count) {
  const u64 end = first + count;
  for (u64 at = first; at < end;) {
    const u64 next = std::min(align_down(at, word_bits) + word_bits, end);
    words_[at / word_bits] |= ~u64{0} >> (word_bits - (next - at)) << at % word_bits;
    at = next;
  }
}

void ranked_bits::seal() {
  before_.assign(words_.size() / block_words + 1, 0);
  total_ = 0;
  for (u64 i = 0; i < words_.size(); i++) {
    if (i % block_words == 0)
      before_[i / block_words] = total_;
    total_ += ones(words_[i]);
  }
  if (words_.size() % block_words == 0)
    before_.back() = total_;
}

u64 ranked_bits::rank(u64 index) const {
  const u64 word = index / word_bits;
  u64 found = before_[word / block_words];
  for (u64 i = align_down(word, block_words); i < word; i++)
    found += ones(words_[i]);
  const u64 rest = index % word_bits;
  return rest == 0 ? found : found + ones(words_[word] & ((u64{1} << rest) - 1));
}

u64 ranked_bits::select(u64 rank) const {
  const auto after = std::ranges::upper_bound(before_, rank);
  const auto block = static_cast<u64>(after - before_.begin()) - 1;
  u64 left = rank - before_[block];
  u64 word = block * block_words;
  for (; left >= ones(words_[word]); word++)
    left -= ones(words_[word]);
  u64 bits = words_[word];
  for (; left > 0; left--)
    bits &= bits - 1;
  return word * word_bits + static_cast<u64>(std::countr_zero(bits));
}

} // namespace bgfs::qcow2
