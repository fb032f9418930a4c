// SPDX-License-Identifier: MIT
// The partition table of a disk: GPT (UEFI Specification 2.10, chapter 5) or MBR, with the logical
// partitions of extended ones. Partitions have the numbers that Linux gives them. Nothing in a
// table is believed: what it says is bounded, held against the length of the disk, and what is
// wrong with it is said in sentences.
#pragma once

#include "graph/base/partitions/disk_sample.h"

#include <string>
#include <string_view>
#include <vector>

namespace bgfs {

// Limits of what a table may ask for.
inline constexpr u32 gpt_entry_length_max = 4096;
inline constexpr u64 gpt_entries_length_max = u64{1} << 20; // of the array
inline constexpr unsigned logical_partitions_max = 256;     // EBRs that are followed
inline constexpr std::size_t table_problems_max = 64;

enum class table_kind : u8 {
  none,
  mbr,
  gpt,
};
[[nodiscard]] std::string_view to_string(table_kind kind);

struct partition {
  u32 number = 0;      // GPT: place in the array, from 1; MBR: 1 to 4, logical ones from 5
  byte_range declared; // as the table says
  byte_range place;    // what of it lies inside the disk
  std::string type;    // "0fc63daf-8483-4772-8e79-3d69d8477de4", "0x83"
  std::string label;   // UTF-8 without NUL, may hold anything else; "" of MBR
  std::string uuid;    // as the kernel's PARTUUID; "" where the table has none
  u64 attributes = 0;  // GPT
  bool is_bootable = false;
  // An extended partition: what it holds are the logical ones and the records that link them.
  bool is_container = false;

  // Whether it can be shown as a file.
  [[nodiscard]] bool has_bytes() const { return !is_container && !place.is_empty(); }
  friend bool operator==(const partition&, const partition&) = default;
};

struct partition_table {
  table_kind kind = table_kind::none;
  u64 sector_length = 512;           // the unit that the table counts in
  std::string id;                    // GPT: of the disk; MBR: its signature, as "0x1234abcd"
  std::vector<partition> partitions; // by number
  std::vector<std::string> problems; // for people; at most table_problems_max

  [[nodiscard]] const partition* find(u32 number) const;
  friend bool operator==(const partition_table&, const partition_table&) = default;
};

// Finds the table. What cannot be read is a problem of the table, never an error.
[[nodiscard]] sampled<partition_table> scan_partition_table(const disk_sample& disk);

} // namespace bgfs
