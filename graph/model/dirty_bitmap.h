// SPDX-License-Identifier: MIT
// A dirty bitmap: which parts of a node's data may have changed since it was added or last cleared
// (reference section 4.9). A bit stands for `granularity` bytes. While the bitmap is enabled, each
// request that changes data sets the bits of what it touches before it is answered, also one that
// failed, since nobody knows what it did. A set bit may lie; a clear one never does.
//
// Formats keep bitmaps in their images (face bitmap_store). Such a bitmap is known by its
// definition from the start, and its bits are read when somebody asks for them or they have to be
// written: until then it is incomplete, and holds only what was set since.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/base/result.h"
#include "graph/model/dirty_bits.h"

#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace bgfs {

inline constexpr u64 bitmap_granularity_min = 512;
inline constexpr u64 bitmap_granularity_max = u64{1} << 31;
inline constexpr u64 bitmap_memory_max = 512 * MiB;         // of the bits of one
inline constexpr std::size_t bitmap_name_length_max = 1023; // bytes, of those that images hold

struct bitmap_definition {
  std::string name;
  u64 granularity = 0; // bytes, a power of two
  bool is_enabled = true;
  bool is_persistent = false;
  // Why it tells nothing and can only be removed; "": it can be used.
  std::string inconsistency = {};
};

class dirty_bitmap {
public:
  enum class origin : bool { added, stored }; // a stored one begins incomplete
  // The size was checked (check_bitmap_size), unless it is inconsistent.
  dirty_bitmap(bitmap_definition definition, u64 length, origin from);

  [[nodiscard]] const bitmap_definition& definition() const { return definition_; }
  [[nodiscard]] const std::string& name() const { return definition_.name; }
  [[nodiscard]] u64 granularity() const { return definition_.granularity; }
  [[nodiscard]] bool is_persistent() const { return definition_.is_persistent; }
  [[nodiscard]] bool is_enabled() const { return definition_.is_enabled; }
  [[nodiscard]] bool is_inconsistent() const { return !definition_.inconsistency.empty(); }
  [[nodiscard]] bool is_recording() const { return is_enabled() && !is_inconsistent(); }
  [[nodiscard]] u64 length() const { return length_; } // of the node, in bytes
  // Who relies on it not being changed, removed or resized (bitmap_hold).
  [[nodiscard]] const std::list<std::string>& holders() const { return holders_; }
  [[nodiscard]] u64 memory() const { return bits_.memory(); }

  // What is dirty; of a complete one.
  [[nodiscard]] bool is_complete() const { return is_complete_; }
  [[nodiscard]] u64 dirty_bytes() const;
  [[nodiscard]] bool is_dirty(u64 offset) const { return bits_.test(offset / granularity()); }
  // The next run of dirty bytes that ends after `from`, cut off before it; nullopt: there is none.
  [[nodiscard]] std::optional<byte_range> next_dirty(u64 from) const;
  [[nodiscard]] const dirty_bits& bits() const { return bits_; }

  // Changes. Callers recount what records (bitmap_list::refresh) where is_recording may differ.
  void mark(byte_range touched); // inside the node
  void mark_all() { mark({0, length_}); }
  void clear(); // completes it
  void set_enabled(bool is_enabled);
  // Union; both are complete and of one length.
  void merge(const dirty_bitmap& source);
  // The part behind the shorter end starts clean, or is forgotten.
  void resize(u64 length);
  void make_persistent(bool is_persistent) { definition_.is_persistent = is_persistent; }

  // For formats: bits from the image, in the order of dirty_bits::serialise, are added. What the
  // node has lost since it was opened is left out.
  void add_stored(u64 first, std::span<const std::byte> bytes);
  void add_stored_run(u64 first, u64 count);
  // How many of the image's bits still count.
  [[nodiscard]] u64 stored_count() const { return stored_count_; }
  void completed() { is_complete_ = true; }
  // Whether the image's bits are others. `stored`: they are these now.
  [[nodiscard]] bool has_changed_bits() const { return has_changed_; }
  void stored() { has_changed_ = false; }

  // For undoing a change.
  struct content {
    dirty_bits bits;
    bool is_complete;
    bool has_changed;
    bool is_enabled;
    u64 stored_count;
  };
  [[nodiscard]] content save() const;
  void restore(content before);

private:
  friend class bitmap_hold;
  void become_inconsistent(std::string why);
  bitmap_definition definition_;
  u64 length_;
  dirty_bits bits_;
  bool is_complete_;
  bool has_changed_;
  u64 stored_count_ = 0;
  std::list<std::string> holders_;
};

// The bitmaps of one node.
class bitmap_list {
public:
  // Whether a request that changes data has to be told to `mark`. The hot path: no bitmap, no cost.
  [[nodiscard]] bool is_recording() const { return recording_ > 0; }
  void mark(byte_range touched);
  // For messages; null: none.
  [[nodiscard]] const dirty_bitmap* first_recording() const;

  [[nodiscard]] bool is_empty() const { return all_.empty(); }
  [[nodiscard]] std::span<const std::unique_ptr<dirty_bitmap>> all() const { return all_; }
  [[nodiscard]] dirty_bitmap* find(std::string_view name) const; // null: none
  dirty_bitmap& add(std::unique_ptr<dirty_bitmap> made);
  [[nodiscard]] std::unique_ptr<dirty_bitmap> take(const dirty_bitmap& which);
  // The node is so long now.
  void resize(u64 length);
  void refresh(); // after is_recording of one of them may have changed
  void drop_persistent();
  // Another number whenever one was added or taken.
  [[nodiscard]] u64 version() const { return version_; }

private:
  std::vector<std::unique_ptr<dirty_bitmap>> all_;              // in the order they were added
  std::unordered_map<std::string_view, dirty_bitmap*> by_name_; // names are the bitmaps' own
  unsigned recording_ = 0;
  u64 version_ = 0;
};

// What a bitmap gets that is added without one: the cluster size between 4 KiB and 64 KiB; 64 KiB
// where there are no clusters (0).
[[nodiscard]] u64 default_bitmap_granularity(u64 cluster_size);
[[nodiscard]] result<> check_bitmap_granularity(u64 granularity);
// Whether a bitmap of a node of this length stays within bitmap_memory_max.
[[nodiscard]] result<> check_bitmap_size(u64 length, u64 granularity);
[[nodiscard]] result<> check_bitmap_name(std::string_view name); // of a new one

} // namespace bgfs
