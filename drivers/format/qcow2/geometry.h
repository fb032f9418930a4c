// SPDX-License-Identifier: MIT
// How an image is cut up: sizes that follow from the header's cluster_bits, refcount_order and the
// extended L2 feature. A value; everything in it is bounded, so its arithmetic cannot overflow for
// offsets below 2^63.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/base/strong_offset.h"

namespace bgfs::qcow2 {

inline constexpr unsigned cluster_bits_min = 9;
inline constexpr unsigned cluster_bits_max = 21;
inline constexpr unsigned cluster_bits_min_extended = 14;
inline constexpr unsigned refcount_order_max = 6;
inline constexpr unsigned subclusters_extended = 32;
// Bounds of what is read into memory at open (reference section 3.1).
inline constexpr u64 l1_bytes_max = 32 * MiB;
inline constexpr u64 refcount_table_bytes_max = 8 * MiB;
inline constexpr u64 snapshots_max = 65536;
inline constexpr u64 snapshot_table_bytes_max = 64 * MiB;
inline constexpr u64 bitmaps_max = 65535;
inline constexpr u64 bitmap_directory_bytes_max = bitmaps_max * 1024;
inline constexpr u64 crypto_header_bytes_max = 16 * MiB;
// L1 and L2 entries and compressed descriptors hold 56-bit host offsets.
inline constexpr u64 host_end_max = u64{1} << 56;

struct geometry {
  unsigned cluster_bits = 16;
  unsigned refcount_order = 4;
  bool is_extended = false; // extended L2 entries
  [[nodiscard]] constexpr u64 cluster() const { return u64{1} << cluster_bits; }
  [[nodiscard]] constexpr unsigned subclusters() const {
    return is_extended ? subclusters_extended : 1;
  }
  [[nodiscard]] constexpr u64 subcluster() const { return cluster() / subclusters(); }

  [[nodiscard]] constexpr u64 l2_entry_bytes() const { return is_extended ? 16 : 8; }
  [[nodiscard]] constexpr u64 l2_entries() const { return cluster() / l2_entry_bytes(); }
  // Guest bytes that one L2 table, and so one L1 entry, describes.
  [[nodiscard]] constexpr u64 l2_span() const { return l2_entries() << cluster_bits; }
  [[nodiscard]] constexpr u64 l1_index(guest_offset at) const { return at.value / l2_span(); }
  [[nodiscard]] constexpr u64 l2_index(guest_offset at) const {
    return (at.value >> cluster_bits) % l2_entries();
  }
  [[nodiscard]] constexpr u64 l1_entries_for(u64 disk_length) const {
    return divide_up(disk_length, l2_span());
  }

  [[nodiscard]] constexpr u64 refcount_bits() const { return u64{1} << refcount_order; }
  [[nodiscard]] constexpr u64 refcount_max() const {
    return refcount_order == 6 ? ~u64{0} : (u64{1} << refcount_bits()) - 1;
  }
  // Clusters that one refcount block describes.
  [[nodiscard]] constexpr u64 block_entries() const { return cluster() * 8 / refcount_bits(); }

  friend constexpr bool operator==(const geometry&, const geometry&) = default;
};

// Some consecutive host clusters, counted in clusters from the start of the file.
struct cluster_run {
  u64 first = 0;
  u64 count = 0;

  [[nodiscard]] constexpr u64 end() const { return first + count; }
  [[nodiscard]] constexpr host_offset offset(const geometry& g) const {
    return host_offset(first << g.cluster_bits);
  }
  [[nodiscard]] constexpr byte_range bytes(const geometry& g) const {
    return {first << g.cluster_bits, count << g.cluster_bits};
  }
  friend constexpr bool operator==(cluster_run, cluster_run) = default;
};

// The clusters that a range of host bytes touches.
[[nodiscard]] constexpr cluster_run clusters_of(const geometry& g, byte_range host) {
  const u64 first = host.offset >> g.cluster_bits;
  return {first, divide_up(host.end(), g.cluster()) - first};
}

} // namespace bgfs::qcow2
