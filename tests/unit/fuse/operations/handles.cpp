// SPDX-License-Identifier: MIT
#include "fuse/operations/handles.h"

#include <doctest/doctest.h>

using namespace bgfs;

TEST_CASE("a handle is found by its number and kind until it is removed") {
  handle_table table;
  const u64 a = table.add(disk_handle{});
  const u64 b = table.add(directory_handle{});
  CHECK(a != b);
  CHECK(table.find<disk_handle>(a) != nullptr);
  CHECK(table.find<directory_handle>(a) == nullptr);
  CHECK(table.find<directory_handle>(b) != nullptr);
  CHECK(table.count() == 2);
  table.remove(a);
  table.remove(a);
  CHECK(table.find<disk_handle>(a) == nullptr);
  CHECK(table.count() == 1);
}

TEST_CASE("an old number does not find who came after") {
  handle_table table;
  const u64 old = table.add(disk_handle{});
  table.remove(old);
  const u64 now = table.add(disk_handle{});
  CHECK(old != now);
  CHECK(table.find<disk_handle>(old) == nullptr);
  CHECK(table.find<disk_handle>(~u64{0}) == nullptr);
}

TEST_CASE("handles stay where they are while others come") {
  handle_table table;
  const u64 first = table.add(disk_handle{});
  const disk_handle* const place = table.find<disk_handle>(first);
  for (int i = 0; i < 1000; i++)
    (void)table.add(disk_handle{});
  CHECK(table.find<disk_handle>(first) == place);
}
