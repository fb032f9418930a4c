// SPDX-License-Identifier: MIT
// The table of internal snapshots (spec, "Snapshots"), from bytes and to bytes. Pure and bounded.
#pragma once

#include "drivers/format/qcow2/geometry.h"
#include "graph/model/snapshot.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bgfs::qcow2 {

// What is said of a snapshot behind the fixed fields; more is kept as it is. Repair may cut longer
// ones, nobody else.
inline constexpr u32 snapshot_extra_max = 1024;

// What new ones get: everything that is known below.
inline constexpr u32 snapshot_extra_written = 24;

struct snapshot {
  host_offset l1;
  u32 l1_entries = 0;
  std::string id;
  std::string name;
  u32 date_seconds = 0;
  u32 date_nanoseconds = 0;
  u64 vm_clock_nanoseconds = 0;
  u64 vm_state_length = 0;
  std::optional<u64> disk_length; // nullopt: not recorded, so it is the image's
  std::optional<u64> icount;
  // The extra data as it was read. What is known of it is above; serialising puts that in.
  std::vector<std::byte> extra;

  friend bool operator==(const snapshot&, const snapshot&) = default;
};

struct snapshot_table {
  std::vector<snapshot> snapshots;
  u64 bytes = 0; // that the table occupies
};

// Nullopt when `bytes` ends inside the table: try again with more. `count` is the header's.
[[nodiscard]] result<std::optional<snapshot_table>>
parse_snapshots(const geometry& g, std::span<const std::byte> bytes, u32 count);

// The table as it has to be written; extra data that is not known here stays. `disk_length`, the
// image's, is recorded where version 3 demands that a snapshot says its own. Fails, with
// error_kind::out_of_range and EFBIG, for more snapshots or bytes than a table may have.
[[nodiscard]] result<std::vector<std::byte>> serialise_snapshots(std::span<const snapshot> all,
                                                                 unsigned version, u64 disk_length);

// One more than the largest number among the ids.
[[nodiscard]] std::string next_snapshot_id(std::span<const snapshot> all);

// `disk_length` is the image's.
[[nodiscard]] snapshot_info to_info(const snapshot& s, u64 disk_length);

} // namespace bgfs::qcow2
