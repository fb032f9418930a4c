// SPDX-License-Identifier: MIT
#include "graph/jobs/measure.h"

#include "drivers/format/qcow2/qcow2.h"

#include <doctest/doctest.h>

using namespace bgfs;

namespace {

result<measured_space> measure(u64 length,
                               const std::vector<std::pair<std::string, std::string>>& list) {
  value given = value::map();
  for (const auto& [name, text] : list)
    given.set(name, text);
  const option_schema* schemas[] = {qcow2_driver_type.create_options};
  const result<options> checked = validate_options(schemas, given);
  REQUIRE(checked.has_value());
  return qcow2_driver_type.measure({.given = *checked, .length = length});
}

} // namespace

TEST_CASE("measure: what an empty image takes, and a full one") {
  struct row {
    u64 length;
    std::vector<std::pair<std::string, std::string>> options;
    u64 required;
    u64 fully_allocated;
  };
  const row rows[] = {
      {u64{1} << 30, {}, 393216, 1074135040},
      {1000, {}, 327680, 393216},
      {1 << 20, {{"compat", "0.10"}}, 327680, 1376256},
      {1 << 20, {{"preallocation", "full"}}, 1376256, 1376256},
      {u64{1} << 30, {{"extended_l2", "on"}}, 524288, 1074266112},
  };
  for (const row& r : rows) {
    CAPTURE(r.length);
    const auto space = measure(r.length, r.options);
    REQUIRE(space.has_value());
    const measured_image m = measure_empty(*space);
    CHECK(m.required == r.required);
    CHECK(m.fully_allocated == r.fully_allocated);
    CHECK_FALSE(m.bitmaps.has_value());
  }
}

TEST_CASE("measure: absurd lengths are refused, whatever they would overflow") {
  for (const u64 length : {~u64{0}, ~u64{0} - 70000, u64{1} << 63, u64{1} << 62}) {
    const auto space = measure(length, {});
    REQUIRE(!space);
    CHECK(space.error().message().contains("too long for clusters of 65536 bytes"));
  }
}

TEST_CASE("measure: bitmaps take their bits, a table each and a directory, in clusters") {
  const measured_bitmap coarse{65536, 2};
  const measured_bitmap fine{512, 2};
  const measured_bitmap both[] = {coarse, fine};
  CHECK(measure_bitmaps(65536, 100 << 20, {}) == 0);
  CHECK(measure_bitmaps(65536, 100 << 20, both) == 327680);
  CHECK(measure_bitmaps(4096, 100 << 20, both) == 45056);
}
