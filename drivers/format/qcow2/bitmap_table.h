// SPDX-License-Identifier: MIT
// The directory of persistent bitmaps and their tables (spec, "Bitmaps"), from bytes and to bytes.
// Pure and bounded.
//
// A table says of each cluster of a bitmap's bits where it is, or, with no cluster, that all of
// them are clear or all are set.
#pragma once

#include "drivers/format/qcow2/geometry.h"
#include "graph/base/result.h"

#include <span>
#include <string>
#include <vector>

namespace bgfs::qcow2 {

struct stored_bitmap {
  host_offset table;
  u32 table_entries = 0;
  bool is_in_use = false;
  u64 flags_at = 0; // of the entry's flags, in the directory
  u32 flags = 0;
  std::string name;
  u8 granularity_bits = 0;
  std::vector<std::byte> extra = {}; // that nobody here knows; kept

  [[nodiscard]] bool is_auto() const; // records from the moment the image is opened
  // Spec, "extra_data_compatible": it may be used although its extra data is not understood.
  [[nodiscard]] bool is_understood() const;
};

namespace bitmap_flag {
inline constexpr u32 in_use = 0x1;
inline constexpr u32 automatic = 0x2;
inline constexpr u32 extra_data_compatible = 0x4;
} // namespace bitmap_flag

inline constexpr u64 bitmap_entry_ones = 1; // of a table: no cluster, and all bits are set

// `count` entries; the error names the bitmap and what is wrong with it.
[[nodiscard]] result<std::vector<stored_bitmap>>
parse_bitmap_directory(const geometry& g, std::span<const std::byte> directory, u32 count,
                       u64 disk_length);

// The same bytes, with zeroes where entries are padded.
[[nodiscard]] std::vector<std::byte>
serialise_bitmap_directory(std::span<const stored_bitmap> bitmaps);

// How many table entries, and so clusters, so many bits take.
[[nodiscard]] u64 bitmap_clusters(const geometry& g, u64 bits);

// Whether the entries of a bitmap's table are possible.
[[nodiscard]] result<> check_bitmap_table(const geometry& g, std::span<const std::byte> table);

// Sets the flag in every entry of the directory.
void mark_bitmaps_in_use(std::span<std::byte> directory, std::span<const stored_bitmap> bitmaps);

} // namespace bgfs::qcow2
