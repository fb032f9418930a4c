// SPDX-License-Identifier: MIT
// What an L2 entry says (spec, "L2 table entry" and "Extended L2 Entries"). Pure functions over
// entries that came from disk; nothing is trusted, impossible ones come out as `invalid`.
#pragma once

#include "drivers/format/qcow2/geometry.h"
#include "graph/base/endian.h"

#include <span>
#include <string_view>

namespace bgfs::qcow2 {

inline constexpr u64 entry_copied = u64{1} << 63;
inline constexpr u64 entry_compressed = u64{1} << 62;
inline constexpr u64 entry_zero = 1; // standard entries only
inline constexpr u64 entry_offset_mask = 0x00fffffffffffe00;

// Both words of an extended entry, or a standard one with an empty bitmap.
struct l2_entry {
  u64 descriptor = 0;
  u64 bitmap = 0; // bits 0-31: allocated, 32-63: reads as zeroes

  [[nodiscard]] constexpr bool is_copied() const { return (descriptor & entry_copied) != 0; }
  [[nodiscard]] constexpr bool is_compressed() const {
    return (descriptor & entry_compressed) != 0;
  }
  // Of the cluster. Not for compressed entries.
  [[nodiscard]] constexpr host_offset host() const {
    return host_offset(descriptor & entry_offset_mask);
  }
  // Offset 0 is a cluster where the copied bit says so, which only external data files can have.
  [[nodiscard]] constexpr bool has_cluster() const {
    return !is_compressed() && (descriptor & (entry_offset_mask | entry_copied)) != 0;
  }
  friend constexpr bool operator==(l2_entry, l2_entry) = default;
};

// What one subcluster is; without extended entries a cluster is its own only subcluster.
enum class subcluster_kind : u8 {
  unallocated,            // the backing file answers; no host cluster
  unallocated_in_cluster, // the backing file answers, though the host cluster exists
  zero,                   // reads as zeroes; no host cluster
  zero_in_cluster,        // reads as zeroes, though the host cluster exists
  normal,                 // data in the host cluster
  compressed,
  invalid, // contradicts the specification
};
[[nodiscard]] std::string_view to_string(subcluster_kind kind);

[[nodiscard]] constexpr bool is_zero(subcluster_kind k) {
  return k == subcluster_kind::zero || k == subcluster_kind::zero_in_cluster;
}
[[nodiscard]] constexpr bool is_unallocated(subcluster_kind k) {
  return k == subcluster_kind::unallocated || k == subcluster_kind::unallocated_in_cluster;
}
[[nodiscard]] constexpr bool has_host(subcluster_kind k) {
  return k == subcluster_kind::normal || k == subcluster_kind::zero_in_cluster ||
         k == subcluster_kind::unallocated_in_cluster;
}

[[nodiscard]] constexpr u64 allocated_bits(unsigned first, unsigned count) {
  return ((u64{1} << count) - 1) << first;
}
[[nodiscard]] constexpr u64 zero_bits(unsigned first, unsigned count) {
  return allocated_bits(first, count) << 32;
}
inline constexpr u64 all_allocated = allocated_bits(0, subclusters_extended);
inline constexpr u64 all_zero = zero_bits(0, subclusters_extended);

struct entry_rules {
  geometry g;
  unsigned version = 3;
  bool has_data_file = false;
};

// The kind of subcluster `index`. `invalid` if the entry's offset is not aligned to a cluster, its
// bitmap claims a subcluster both allocated and zero, claims data where no cluster is, a version 2
// image uses the zero flag, or one with an external data file has a compressed cluster.
[[nodiscard]] subcluster_kind kind_of(const entry_rules& rules, l2_entry entry, unsigned index);

// Why kind_of says `invalid`, for messages: "its cluster offset 0x... is not aligned to 0x10000".
[[nodiscard]] std::string explain_invalid(const entry_rules& rules, l2_entry entry);

// How many subclusters from `first` on, within the cluster, are of the same kind as it.
[[nodiscard]] unsigned same_kind_count(const entry_rules& rules, l2_entry entry, unsigned first);

// Where a compressed cluster's bytes lie: a run of host bytes at any alignment. The stream may end
// before the end of the range, which is counted in sectors of 512 bytes.
[[nodiscard]] byte_range compressed_range(const geometry& g, l2_entry entry);
// The entry of a compressed cluster whose bytes lie there, before compressed_end_max.
[[nodiscard]] l2_entry compressed_entry(const geometry& g, byte_range host);
// Where the host bytes end that the descriptor of a compressed cluster can name.
[[nodiscard]] u64 compressed_end_max(const geometry& g);

[[nodiscard]] inline l2_entry load_entry(const geometry& g, std::span<const std::byte> table,
                                         u64 index) {
  const u64 at = index * g.l2_entry_bytes();
  return {load<be64>(table, at), g.is_extended ? load<be64>(table, at + 8).get() : 0};
}

inline void store_entry(const geometry& g, std::span<std::byte> table, u64 index, l2_entry entry) {
  const u64 at = index * g.l2_entry_bytes();
  store(table, be64(entry.descriptor), at);
  if (g.is_extended)
    store(table, be64(entry.bitmap), at + 8);
}

} // namespace bgfs::qcow2
