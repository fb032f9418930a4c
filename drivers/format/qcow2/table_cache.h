// SPDX-License-Identifier: MIT
// One cache of table pages in a metadata_region: which page is where and which may be reused. It
// does no I/O (metadata_store does) and never suspends. The index from host offset to page is
// derived from the descriptors; everything else lives in the region.
#pragma once

#include "drivers/format/qcow2/metadata_region.h"
#include "graph/base/strong_offset.h"

#include <optional>
#include <vector>

namespace bgfs::qcow2 {

class table_cache {
public:
  table_cache(metadata_region& region, table_kind kind) : region_(&region), kind_(kind) {}

  // The page with the table part at `at` in any state but empty; nullopt if none.
  [[nodiscard]] std::optional<u32> find(host_offset at) const;
  [[nodiscard]] std::span<std::byte> bytes(u32 page) { return region_->page(kind_, page); }
  [[nodiscard]] page_state state(u32 page) const { return of(page).state; }
  [[nodiscard]] host_offset place(u32 page) const { return host_offset(of(page).host_offset); }
  void touch(u32 page) { of(page).was_used = 1; }

  // A page to fill: one never used, one dropped, or the clean one whose last use is longest ago
  // (roughly). nullopt when all are dirty or loading (Q2: neither is ever evicted).
  [[nodiscard]] std::optional<u32> claim();
  // Gives a claimed page its identity.
  void bind(u32 page, host_offset at, page_state state);
  void set_clean(u32 page);
  void set_dirty(u32 page);
  // The page holds nothing any more.
  void drop(u32 page);
  // Drops what lies in `host`, dirty or not: the clusters were freed (Q3: no page outlives its
  // cluster). A page being loaded loses its identity and is dropped by its loader.
  void forget(byte_range host);
  // Ends the life of a loading page that was forgotten meanwhile.
  void abandon(u32 page);
  // True unless `at` was forgotten or dropped since `page` was bound to it.
  [[nodiscard]] bool is_bound(u32 page, host_offset at) const;

  // Drops clean pages not used since the last call and gives their memory back.
  void drop_unused();
  [[nodiscard]] std::vector<u32> dirty_pages() const; // by host offset
  [[nodiscard]] u64 dirty_count() const { return dirty_count_; }
  [[nodiscard]] u64 page_bytes() const { return region_->layout(kind_).page_bytes; }
  [[nodiscard]] u64 page_count() const { return region_->layout(kind_).page_count; }
  [[nodiscard]] u64 pages_in_use() const { return bound_count_; }
  [[nodiscard]] table_kind kind() const { return kind_; }

private:
  static constexpr u32 none = ~u32{0};
  [[nodiscard]] page_descriptor& of(u32 page) const { return region_->descriptor(kind_, page); }
  [[nodiscard]] std::size_t bucket(host_offset at) const;
  void link(u32 page);
  void unlink(u32 page);
  void rehash();
  [[nodiscard]] std::optional<u32> evict();

  metadata_region* region_; // one region after another; see metadata_store::use_region
  table_kind kind_;
  std::vector<u32> buckets_ = std::vector<u32>(64, none);
  std::vector<u32> next_; // by page; grows as pages come into use
  std::vector<u32> free_;
  u32 hand_ = 0;
  u64 bound_count_ = 0;
  u64 dirty_count_ = 0;
  u64 loading_count_ = 0;
};

} // namespace bgfs::qcow2
