// SPDX-License-Identifier: MIT
#include "graph/model/extent_table.h"

#include <doctest/doctest.h>

#include <thread>

using namespace bgfs;

namespace {

constexpr unsigned bits = 16;
constexpr u64 granule = u64{1} << bits;

resolved_extent data_at(u64 guest, u64 length, u64 offset, bool may_write = false, u16 path = 3) {
  return {.guest = {guest, length}, .may_write = may_write, .path = path, .offset = offset};
}

} // namespace

TEST_CASE("an extent is found at every offset that it holds, and nowhere else") {
  extent_table table(bits);
  CHECK(!table.find(0));
  table.put(data_at(granule + 512, 1024, 7777, true), granule + 600);
  CHECK(!table.find(granule + 511));
  CHECK(table.find(granule + 512) == data_at(granule + 512, 1024, 7777, true));
  CHECK(table.find(granule + 512 + 1023) == data_at(granule + 512, 1024, 7777, true));
  CHECK(!table.find(granule + 512 + 1024));
  table.put({.guest = {5 * granule, granule}, .is_zero = true, .path = 255}, 5 * granule);
  const auto zero = table.find(6 * granule - 1);
  REQUIRE(zero);
  CHECK(zero->is_zero);
  CHECK(zero->path == 255);
}

TEST_CASE("an extent is cut to the granule that was asked about, and its offset with it") {
  extent_table table(bits);
  table.put(data_at(100, 10 * granule, 1'000'000), 3 * granule + 5);
  CHECK(!table.find(3 * granule - 1));
  CHECK(table.find(3 * granule) == data_at(3 * granule, granule, 1'000'000 + 3 * granule - 100));
  CHECK(!table.find(4 * granule));
  table.put(data_at(100, 10 * granule, 1'000'000), 7);
  CHECK(table.find(200) == data_at(100, granule - 100, 1'000'000));
}

TEST_CASE("granules a table apart push each other out") {
  extent_table table(bits);
  const u64 far = extent_table::slot_count * granule;
  table.put(data_at(granule, granule, 1), granule);
  table.put(data_at(far + granule, granule, 2), far + granule);
  CHECK(!table.find(granule));
  CHECK(table.find(far + granule)->offset == 2);
  table.retire({granule, granule}); // not about it
  CHECK(table.find(far + granule));
}

TEST_CASE("what is retired is gone, and only that") {
  extent_table table(bits);
  for (u64 i = 0; i < 8; i++)
    table.put(data_at(i * granule, granule, i), i * granule);
  table.retire({3 * granule - 1, 2});
  table.retire({6 * granule, 0});
  for (u64 i = 0; i < 8; i++)
    CHECK(table.find(i * granule).has_value() == (i != 2 && i != 3));
  table.retire({7 * granule, u64{1} << 62});
  CHECK(!table.find(7 * granule));
  table.retire_all();
  CHECK(!table.find(0));
  table.put(data_at(0, granule, 9), 0);
  table.reset(12);
  CHECK(!table.find(0));
  CHECK(table.granule() == 4096);
}

TEST_CASE("whoever looks while another puts sees one extent or the other, never a mixture") {
  extent_table table(bits);
  std::atomic<bool> ends{false};
  std::atomic<u64> found{0};
  std::thread looks([&] {
    while (!ends.load()) {
      const auto e = table.find(64);
      if (!e)
        continue;
      found.fetch_add(1);
      // What belongs together was put together.
      if (e->guest.length != 128 + e->offset % 1000 || e->path != e->offset % 256 ||
          e->may_write != (e->offset % 2 == 0))
        found.store(~u64{0} >> 1);
    }
  });
  for (u64 i = 0; i < 200'000 || found.load() < 1000; i++) {
    table.put(data_at(0, 128 + i % 1000, i, i % 2 == 0, static_cast<u16>(i % 256)), 0);
    if (i % 64 == 0)
      table.retire({0, 1});
  }
  ends.store(true);
  looks.join();
  CHECK(found.load() < ~u64{0} >> 2);
}
