// SPDX-License-Identifier: MIT
// The table of internal snapshots, as far as this version uses it: where their L1 tables are, so
// that nothing overwrites them. Pure and bounded.
#pragma once

#include "drivers/format/qcow2/geometry.h"
#include "graph/base/result.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bgfs::qcow2 {

struct snapshot {
  host_offset l1;
  u32 l1_entries = 0;
  std::string id;
  std::string name;
};

struct snapshot_table {
  std::vector<snapshot> snapshots;
  u64 bytes = 0; // that the table occupies
};

// Nullopt when `bytes` ends inside the table: try again with more. `count` is the header's.
[[nodiscard]] result<std::optional<snapshot_table>>
parse_snapshots(const geometry& g, std::span<const std::byte> bytes, u32 count);

} // namespace bgfs::qcow2
