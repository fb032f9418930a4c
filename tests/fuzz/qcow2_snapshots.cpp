// SPDX-License-Identifier: MIT
// Reads the input as a snapshot table, with the number of its entries in the first byte. What is
// accepted is the same when it is written and read again.
#include "drivers/format/qcow2/snapshot_table.h"
#include "graph/base/assert.h"

using namespace bgfs;
using namespace bgfs::qcow2;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size == 0)
    return 0;
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
  const geometry g;
  const auto table = parse_snapshots(g, bytes, data[0]);
  if (!table || !*table)
    return 0;
  const std::vector<snapshot>& all = (*table)->snapshots;
  BGFS_ASSERT(all.size() == data[0], "every entry that the header counts is there");
  BGFS_ASSERT(!next_snapshot_id(all).empty(), "there is always another id");
  for (const snapshot& s : all)
    (void)to_info(s, 1 << 20);
  const auto written = serialise_snapshots(all, 3, 1 << 20);
  if (!written)
    return 0;
  const auto again = parse_snapshots(g, *written, data[0]);
  BGFS_ASSERT(again.has_value() && again->has_value(), "what was written can be read");
  for (std::size_t i = 0; i < all.size(); i++) {
    const snapshot& s = (*again)->snapshots[i];
    BGFS_ASSERT(s.id == all[i].id && s.name == all[i].name && s.l1 == all[i].l1 &&
                    s.l1_entries == all[i].l1_entries,
                "a snapshot survives being written");
  }
  return 0;
}
