// SPDX-License-Identifier: MIT
#include "fuse/tree/parking.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

using namespace bgfs;

namespace {

std::vector<std::byte> filled(std::size_t length, int with) {
  return std::vector<std::byte>(length, static_cast<std::byte>(with));
}

bool gives_back(const parking::space& from, const std::vector<std::byte>& wanted) {
  std::vector<std::byte> found(wanted.size());
  return from.take_back(found).has_value() && found == wanted;
}

} // namespace

TEST_CASE("what is parked comes back, whoever leaves first") {
  parking lot;
  std::vector<parking::space> spaces;
  for (int i = 0; i < 8; i++)
    spaces.push_back(lot.park(filled(5000 + static_cast<std::size_t>(i), i + 1)));
  CHECK(lot.parked() == 8 * 5000 + 28);
  for (const int i : {3, 0, 7}) {
    CHECK(gives_back(spaces[static_cast<std::size_t>(i)],
                     filled(5000 + static_cast<std::size_t>(i), i + 1)));
    spaces[static_cast<std::size_t>(i)] = {};
  }
  spaces.push_back(lot.park(filled(100, 9)));
  CHECK(gives_back(spaces.back(), filled(100, 9)));
  for (const int i : {1, 2, 4, 5, 6})
    CHECK(gives_back(spaces[static_cast<std::size_t>(i)],
                     filled(5000 + static_cast<std::size_t>(i), i + 1)));
  spaces.clear();
  CHECK(lot.parked() == 0);
  CHECK_FALSE(lot.has_file());
  const parking::space again = lot.park(filled(10, 1));
  CHECK(gives_back(again, filled(10, 1)));
}

TEST_CASE("bytes that are gone from the file are an error, not other bytes") {
  parking lot;
  const parking::space parked = lot.park(filled(10, 1));
  REQUIRE(static_cast<bool>(parked));
  std::vector<std::byte> found(10);
  lot.lose_all();
  const result<> outcome = parked.take_back(found);
  REQUIRE_FALSE(outcome.has_value());
  CHECK(outcome.error().message().starts_with(
      "cannot read back 10 bytes of a write that waited for memory"));
}
