// SPDX-License-Identifier: MIT
// Reads the input as a bitmap directory, with the number of its entries in the first byte, and as
// the table of one bitmap.
#include "drivers/format/qcow2/bitmap_table.h"
#include "graph/base/assert.h"

using namespace bgfs;
using namespace bgfs::qcow2;

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size == 0)
    return 0;
  const geometry g;
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
  (void)check_bitmap_table(g, bytes.first(bytes.size() / 8 * 8));
  const auto all = parse_bitmap_directory(g, bytes, data[0], 1 << 20);
  if (!all)
    return 0;
  BGFS_ASSERT(all->size() == data[0], "every entry that the header counts is there");
  std::vector<std::byte> marked(bytes.begin(), bytes.end());
  mark_bitmaps_in_use(marked, *all);
  const auto again = parse_bitmap_directory(g, marked, data[0], 1 << 20);
  BGFS_ASSERT(again.has_value() && again->size() == all->size(), "marking changes flags alone");
  for (const stored_bitmap& b : *again)
    BGFS_ASSERT(b.is_in_use, "all of them are marked");
  return 0;
}
