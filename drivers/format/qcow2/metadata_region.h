// SPDX-License-Identifier: MIT
// The memory that holds an image's cached metadata: L2 slices and refcount blocks with their state.
//
// It is one mapping of a memfd and contains no pointers, only offsets into itself, so that another
// process can map it anywhere and know what every page is, how new it is, and whether the disk has
// it yet. Pages that were never used cost no memory; dropped ones give theirs back.
//
//   region_header | page_descriptor of cache 0, 1 | pages of cache 0, 1
#pragma once

#include "graph/base/byte_range.h"
#include "graph/base/result.h"

#include <array>
#include <memory>
#include <span>

namespace bgfs::qcow2 {

enum class table_kind : u32 { l2_slice = 0, refcount_block = 1 };
inline constexpr std::size_t table_kinds = 2;
[[nodiscard]] std::string_view to_string(table_kind kind);

enum class page_state : u32 {
  empty = 0,
  loading, // being read; content is not valid yet
  clean,   // as on the disk
  dirty,   // newer than the disk
};

struct page_descriptor {
  u64 host_offset; // of the page in the image's file; its identity
  u64 generation;  // of the last change; larger is newer, over all pages of the region
  table_kind kind;
  page_state state;
  u32 was_used; // since the clock hand passed
  u32 reserved;
};
static_assert(sizeof(page_descriptor) == 32);

struct cache_layout {
  u64 page_bytes;
  u64 page_count;
  u64 used_count; // pages from this index on were never used
  u64 descriptors_at;
  u64 pages_at;
};

struct region_header {
  u64 magic;
  u32 version;
  u32 header_bytes;
  u64 generation; // the newest given to a page
  // What L2 pages rely on (refcounts, data of new clusters) may not be durable: a flush of the
  // file must come before any dirty L2 page is written (R1, R2). 0 or 1.
  u64 needs_flush_before_l2;
  std::array<cache_layout, table_kinds> caches;
};
static_assert(sizeof(region_header) <= 4096);

struct page_plan {
  u64 page_bytes = 0;
  u64 page_count = 0;
  friend bool operator==(const page_plan&, const page_plan&) = default;
};

class metadata_region {
public:
  static constexpr u64 magic = 0x6267667371326d31; // "bgfsq2m1"

  [[nodiscard]] static result<std::unique_ptr<metadata_region>>
  create(std::array<page_plan, table_kinds> plans);
  ~metadata_region();
  metadata_region(const metadata_region&) = delete;
  metadata_region& operator=(const metadata_region&) = delete;

  [[nodiscard]] region_header& header() { return *at<region_header>(0); }
  [[nodiscard]] cache_layout& layout(table_kind kind) {
    return header().caches[static_cast<std::size_t>(kind)];
  }
  [[nodiscard]] page_descriptor& descriptor(table_kind kind, u32 index) {
    return *at<page_descriptor>(layout(kind).descriptors_at + index * sizeof(page_descriptor));
  }
  [[nodiscard]] std::span<std::byte> page(table_kind kind, u32 index) {
    const cache_layout& l = layout(kind);
    return {base_ + l.pages_at + index * l.page_bytes, l.page_bytes};
  }
  // Gives the memory of a page back to the system; it reads as zeroes afterwards. Pages smaller
  // than the system's are left alone.
  void release_page(table_kind kind, u32 index);

  [[nodiscard]] int fd() const { return fd_; } // of the memfd; stays the region's
  [[nodiscard]] u64 length() const { return length_; }

private:
  metadata_region(int fd, std::byte* base, u64 length) : fd_(fd), base_(base), length_(length) {}
  // The mapping is page-aligned memory of our own, in which these objects live.
  template<class T>
  [[nodiscard]] T* at(u64 offset) {
    return static_cast<T*>(static_cast<void*>(base_ + offset));
  }

  int fd_;
  std::byte* base_;
  u64 length_;
};

} // namespace bgfs::qcow2
