// SPDX-License-Identifier: MIT
// Where the bytes of a root live, kept for whoever reads or writes them next: extents that are
// resolved through the whole chain down to a file. One thread, the home, puts and retires; any
// thread finds. Nothing here waits or allocates.
//
// The guest's offsets are cut into granules, and a granule has one slot that it shares with those a
// whole table away, so that a put may push another extent out. An extent lies within one granule:
// what retires a range looks at the slots of its granules and nowhere else.
//
// A slot has a version that is odd while it changes (a sequence lock). Slots lie in memory that the
// system gives page by page as it is used: a table of a disk that nobody reads costs nothing.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/base/result.h"

#include <atomic>
#include <optional>
#include <vector>

namespace bgfs {

struct resolved_extent {
  byte_range guest;
  bool is_zero = false;   // reads as zeroes; has no place
  bool may_write = false; // the bytes may be overwritten where they are, and nobody need be told
  u16 path = 0;           // of the lease: the nodes that lead there, and the file
  u64 offset = 0;         // in the file, of the first byte

  friend bool operator==(const resolved_extent&, const resolved_extent&) = default;
};

class extent_table {
public:
  static constexpr unsigned slot_bits = 16;
  static constexpr u64 slot_count = u64{1} << slot_bits;
  static constexpr unsigned granule_bits_min = 12; // a page
  static constexpr unsigned granule_bits_max = 30;

  // `granule_bits` is cut to the limits above. Nothing is kept where there is no memory for it.
  explicit extent_table(unsigned granule_bits);
  ~extent_table();
  extent_table(const extent_table&) = delete;
  extent_table& operator=(const extent_table&) = delete;

  [[nodiscard]] u64 granule() const { return u64{1} << granule_bits_; }

  // Any thread. An extent that holds `offset`.
  [[nodiscard]] std::optional<resolved_extent> find(u64 offset) const;

  // The home. `e` is cut to the granule that `offset`, which lies in it, belongs to.
  void put(resolved_extent e, u64 offset);
  void retire(byte_range guest);
  void retire_all();
  // The same for a disk of another shape, while nobody looks.
  void reset(unsigned granule_bits);

private:
  struct slot {
    u64 version;
    u64 guest_offset;
    u64 what; // length << 32 | path << 16 | is_zero << 1 | may_write; 0: nothing
    u64 offset;
  };
  static constexpr u64 slots_per_page = 4096 / sizeof(slot);
  [[nodiscard]] slot* slot_of(u64 offset) const {
    return slots_ + ((offset >> granule_bits_) & (slot_count - 1));
  }
  void store(slot& s, const resolved_extent& e);
  void clear(slot& s);

  slot* slots_ = nullptr;
  unsigned granule_bits_;
  std::vector<bool> used_pages_; // of the home
};

} // namespace bgfs
