// SPDX-License-Identifier: MIT
// The directory of persistent bitmaps (spec, "Bitmaps"), as far as software that does not maintain
// them needs it: to see that the structures are sound, and to mark every bitmap IN_USE before the
// first write ("should be set while the bitmap is not synced"). Pure and bounded.
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
};

// `count` entries; the error names the bitmap and what is wrong with it.
[[nodiscard]] result<std::vector<stored_bitmap>>
parse_bitmap_directory(const geometry& g, std::span<const std::byte> directory, u32 count,
                       u64 disk_length);

// Whether the entries of a bitmap's table are possible.
[[nodiscard]] result<> check_bitmap_table(const geometry& g, std::span<const std::byte> table);

// Sets the flag in every entry of the directory.
void mark_bitmaps_in_use(std::span<std::byte> directory, std::span<const stored_bitmap> bitmaps);

} // namespace bgfs::qcow2
