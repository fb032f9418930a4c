// SPDX-License-Identifier: MIT
#include "graph/model/dirty_bits.h"

#include "graph/base/byte_range.h"

#include <doctest/doctest.h>

#include <random>

using namespace bgfs;

namespace {

// The same set as a vector of bool, which cannot be wrong.
class model_run {
public:
  model_run(u64 count, u64 seed) : bits_(count), model_(count), random_(seed) {}

  void step() {
    const u64 kind = random_() % 16;
    if (kind < 5) {
      set();
    } else if (kind < 9) {
      reset();
    } else if (kind == 9) {
      resize();
    } else if (kind == 10) {
      merge();
    } else if (kind == 11) {
      through_bytes();
    } else if (kind == 12 && random_() % 4 == 0) {
      bits_.reset_all();
      model_.assign(model_.size(), false);
    } else if (kind == 13) {
      bits_ = dirty_bits(bits_); // a copy is the same
    } else {
      search();
    }
    REQUIRE(bits_.count() == model_.size());
    REQUIRE(bits_.set_count() == static_cast<u64>(std::ranges::count(model_, true)));
  }
  void compare() const {
    u64 same = 0;
    for (u64 i = 0; i < model_.size(); i++)
      same += bits_.test(i) == model_[i] ? 1 : 0;
    REQUIRE(same == model_.size());
  }

private:
  struct run {
    u64 first, length;
  };
  // Often aligned to chunks, and often to their edges but for one.
  run any_run() {
    const u64 count = model_.size();
    if (count == 0)
      return {0, 0};
    u64 first = random_() % count;
    u64 length = random_() % (count - first + 1);
    if (random_() % 3 == 0)
      length = std::min<u64>(length, 1 + random_() % 70);
    if (random_() % 3 == 0) {
      first = align_down(first, dirty_bits::chunk_bits);
      length =
          std::min((1 + random_() % 3) * dirty_bits::chunk_bits - random_() % 2, count - first);
    }
    return {first, length};
  }
  void fill(std::vector<bool>& model, run r, bool value) const {
    std::fill_n(model.begin() + static_cast<i64>(r.first), r.length, value);
  }
  void set() {
    const run r = any_run();
    const auto begin = model_.begin() + static_cast<i64>(r.first);
    const auto clear = std::count(begin, begin + static_cast<i64>(r.length), false);
    REQUIRE(bits_.set(r.first, r.length) == static_cast<u64>(clear));
    fill(model_, r, true);
  }
  void reset() {
    const run r = any_run();
    bits_.reset(r.first, r.length);
    fill(model_, r, false);
  }
  void resize() {
    const u64 count = random_() % 2 == 0 ? random_() % 150000 : model_.size() + random_() % 100;
    bits_.resize(count);
    model_.resize(count);
  }
  void merge() {
    dirty_bits other(model_.size());
    for (u64 i = random_() % 4; i > 0; i--) {
      const run r = any_run();
      other.set(r.first, r.length);
      fill(model_, r, true);
    }
    const u64 before = bits_.set_count();
    REQUIRE(before + bits_.merge(other) == bits_.set_count());
  }
  void through_bytes() {
    const u64 count = model_.size();
    dirty_bits copy(count);
    for (u64 first = 0; first < count;) {
      std::vector<std::byte> bytes(1 + random_() % 5000, std::byte{0xaa}); // also past the end
      bits_.serialise(first, bytes);
      u64 same = 0;
      for (u64 i = 0; i < bytes.size() * 8; i++) {
        const bool bit = (std::to_integer<unsigned>(bytes[i / 8]) >> (i % 8) & 1) != 0;
        same += bit == (first + i < count && model_[first + i]) ? 1 : 0;
      }
      REQUIRE(same == bytes.size() * 8);
      copy.merge_bytes(first, bytes);
      first += bytes.size() * 8;
    }
    REQUIRE(copy == bits_);
    const std::vector<std::byte> beyond(16, std::byte{0xff}); // ignored
    copy.merge_bytes(align_up(count, 8), beyond);
    REQUIRE(copy == bits_);
  }
  void search() {
    const run r = any_run();
    const auto from = model_.begin() + static_cast<i64>(r.first);
    for (const bool wanted : {true, false}) {
      const auto at = std::find(from, model_.end(), wanted);
      const auto found = wanted ? bits_.next_set(r.first) : bits_.next_clear(r.first);
      REQUIRE(found.value_or(model_.size()) == static_cast<u64>(at - model_.begin()));
    }
    if (r.length == 0)
      return;
    const auto set = std::count(from, from + static_cast<i64>(r.length), true);
    using uniformity = dirty_bits::uniformity;
    const uniformity expected = set == 0                            ? uniformity::clear
                                : static_cast<u64>(set) == r.length ? uniformity::set
                                                                    : uniformity::mixed;
    REQUIRE(bits_.uniformity_of(r.first, r.length) == expected);
  }

  dirty_bits bits_;
  std::vector<bool> model_;
  std::mt19937_64 random_;
};

} // namespace

TEST_CASE("dirty bits agree with a vector of bool, whatever is done to them") {
  for (const u64 count : {u64{0}, u64{1}, u64{7}, u64{64}, u64{65}, u64{32767}, u64{32768},
                          u64{32769}, u64{98304}, u64{100001}}) {
    for (u64 seed = 1; seed <= 3; seed++) {
      CAPTURE(count);
      CAPTURE(seed);
      model_run run(count, seed);
      for (int i = 0; i < 120; i++)
        run.step();
      run.compare();
    }
  }
}

TEST_CASE("dirty bits take memory for what is mixed, and a search passes what is not") {
  const u64 count = u64{1} << 32; // 512 MiB of bits
  dirty_bits bits(count);
  CHECK(bits.memory() == 0);
  CHECK(!bits.next_set(0));
  CHECK(bits.next_clear(5) == 5);
  bits.set(0, count);
  const u64 empty = bits.memory();
  CHECK(empty < 4 * MiB);
  CHECK(!bits.next_clear(0));
  bits.reset(count - 1, 1);
  CHECK(bits.memory() == empty + 4 * KiB);
  CHECK(bits.next_clear(0) == count - 1);
  bits.reset_all();
  CHECK(bits.memory() == 0);
  bits.set(count - 5, 2);
  CHECK(bits.memory() == empty + 4 * KiB);
  // A million searches over all of it would take minutes bit by bit.
  u64 sum = 0;
  for (int i = 0; i < 10000; i++)
    sum += *bits.next_set(static_cast<u64>(i));
  CHECK(sum == 10000 * (count - 5));
  CHECK(bits.next_set(count - 3) == std::nullopt);
}
