// SPDX-License-Identifier: MIT
// Persistent bitmaps in the qcow2 tests.
#pragma once

#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/bitmap_actions.h"

namespace bgfs::test {

// What a bitmap should say: each granule that was touched since it was clean.
struct modelled_bitmap {
  u64 granularity = 0;
  bool is_enabled = true;
  std::vector<bool> bits = {};

  void resize(u64 length) { bits.resize((length + granularity - 1) / granularity); }
  void mark(byte_range r) {
    if (r.is_empty())
      return;
    for (u64 i = r.offset / granularity; i * granularity < r.end() && i < bits.size(); i++)
      bits[i] = true;
  }
  void clear() { bits.assign(bits.size(), false); }
  void merge(const modelled_bitmap& other, u64 length) {
    for (u64 i = 0; i < other.bits.size(); i++)
      if (other.bits[i])
        mark(byte_range{i * other.granularity, other.granularity}.intersection({0, length}));
  }
};

inline bool is_same_set(const dirty_bits& a, const std::vector<bool>& b) {
  bool is_same = a.count() == b.size();
  for (u64 i = 0; is_same && i < b.size(); i++)
    is_same = a.test(i) == b[i];
  return is_same;
}

// An image that is open for writing, and the operations on its bitmaps.
struct bitmap_fixture {
  qcow2_bench b;
  memory_disk* disk;
  root* r = nullptr;
  std::optional<bitmap_actions> actions;

  explicit bitmap_fixture(u64 length = MiB, const option_list& create = {{"cluster_size", "4K"}})
      : disk(&b.create("d", length, create)) {
    open();
  }
  void open(const option_list& options = {}, permissions wanted = may_resize) {
    r = &b.open("d", options, "", wanted);
    actions.emplace(b.bench, b.top());
  }
  void close() {
    b.close();
    require_sound(*disk);
  }
  void close_and_open() {
    close();
    open();
  }
  void write(u64 offset, u64 length, u64 seed = 1) {
    b.bench.must(r->write(offset, pattern(length, seed)));
  }
  // As the image has it.
  [[nodiscard]] image_bitmap stored(const std::string& name) const {
    const auto all = read_bitmaps(disk->bytes);
    REQUIRE(all.contains(name));
    return all.at(name);
  }
  [[nodiscard]] std::vector<u64> stored_dirty(const std::string& name) const {
    const image_bitmap found = stored(name);
    std::vector<u64> dirty;
    for (u64 i = 0; i < found.bits.size(); i++)
      if (found.bits[i])
        dirty.push_back(i);
    return dirty;
  }
};

} // namespace bgfs::test
