// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/refcount_table.h"

#include <doctest/doctest.h>

#include <utility>
#include <vector>

using bgfs::u64;
using bgfs::qcow2::refcount_table;

TEST_CASE("qcow2 a refcount table takes space for what is in it, not for its length") {
  refcount_table table;
  table.resize(1 << 20);
  for (u64 i = 0; i < table.size(); i += 4096)
    table.set(i, 0); // no entry
  CHECK(table.piece_count() == 0);
  table.set(0, 0x10000);
  table.set(1, 0x20000);
  table.set((1 << 20) - 1, 0x30000);
  CHECK(table.piece_count() == 2);
  CHECK(table[0] == 0x10000);
  CHECK(table[1] == 0x20000);
  CHECK(table[2] == 0);
  CHECK(table[5000] == 0);
  CHECK(table[(1 << 20) - 1] == 0x30000);
  table.set(1, 0);
  CHECK(table[1] == 0);
  std::vector<std::pair<u64, u64>> entries;
  table.for_each([&](u64 index, u64 block) { entries.emplace_back(index, block); });
  CHECK(entries == std::vector<std::pair<u64, u64>>{{0, 0x10000}, {(1 << 20) - 1, 0x30000}});
}

TEST_CASE("qcow2 a longer refcount table keeps what was in it") {
  refcount_table table;
  table.resize(1);
  table.set(0, 512);
  refcount_table longer = table;
  longer.resize(200);
  longer.set(199, 1024);
  CHECK(longer[0] == 512);
  CHECK(longer[1] == 0);
  CHECK(longer[199] == 1024);
  CHECK(table.size() == 1);
}
