// SPDX-License-Identifier: MIT
// The qcow2 image that holds some clusters of a disk and nothing else: how long it is, and what is
// where in it. Nothing of it is stored; every byte is computed when it is asked for. Pure.
//
// In this order: header, refcount table, refcount blocks, L1 table, L2 tables, data. The data are
// in the order of the disk, so a copy reads both from front to back. Every cluster is counted once.
#pragma once

#include "drivers/format/qcow2/geometry.h"
#include "drivers/format/qcow2/increment/ranked_bits.h"
#include "graph/base/result.h"

#include <cstddef>
#include <optional>
#include <span>

namespace bgfs::qcow2 {

// A cluster of the disk that is in neither set is not in the image: what lies below shows.
struct increment_content {
  u64 disk_length = 0;
  unsigned cluster_bits = 16;
  ranked_bits data; // clusters of the disk that are stored; sealed
  ranked_bits zero; // and those that read as zeroes; sealed
};

class increment_layout {
public:
  // Fails for disks that are too long for their clusters.
  [[nodiscard]] static result<increment_layout> create(increment_content content);

  [[nodiscard]] u64 length() const { return (first_data_ + content_.data.set_count()) * cluster(); }
  [[nodiscard]] u64 cluster() const { return g_.cluster(); }
  // What is at the beginning of a part of the image: the disk's bytes from `guest` on, or metadata.
  struct place {
    u64 length = 0; // of the run with this answer, which ends in the part's last cluster or before
    std::optional<u64> guest;
  };
  [[nodiscard]] place find(byte_range part) const;
  // Bytes of the metadata: those before the data.
  void render(u64 offset, std::span<std::byte> into) const;

private:
  explicit increment_layout(increment_content content) : content_(std::move(content)) {}
  void place_tables();
  [[nodiscard]] result<> make_header();
  void render_cluster(u64 index, u64 within, std::span<std::byte> into) const;
  [[nodiscard]] u64 refcount_table_entry(u64 index) const;
  [[nodiscard]] u64 l1_entry(u64 index) const;
  [[nodiscard]] u64 l2_entry_of(u64 guest_cluster) const;
  template<class Entry>
  void render_entries(u64 offset, std::span<std::byte> into, Entry entry) const;

  increment_content content_;
  geometry g_;
  u64 guest_clusters_ = 0;
  ranked_bits tables_{0}; // L1 entries that have an L2 table
  u64 l1_entries_ = 0;
  // In clusters of the image; the header is at 0, the refcount table at 1.
  u64 first_block_ = 0;
  u64 blocks_ = 0;
  u64 first_l1_ = 0;
  u64 first_l2_ = 0;
  u64 first_data_ = 0;
  std::vector<std::byte> header_;
};

} // namespace bgfs::qcow2
