// SPDX-License-Identifier: MIT
#include "config/snapshot_text.h"

#include <doctest/doctest.h>

#include <cstdlib>

using namespace bgfs;

TEST_CASE("a snapshot is named by one word, or by its parts") {
  const auto as_json = [](const char* text) { return to_json(*parse_snapshot(text)); };
  CHECK(as_json("before") == R"({"snapshot": "before"})");
  CHECK(as_json("a,b=c") == R"({"snapshot": "a,b=c"})");
  CHECK(as_json("snapshot.id=3") == R"({"snapshot-id": "3"})");
  CHECK(as_json("snapshot.name=a,snapshot.id=3") ==
        R"({"snapshot-name": "a", "snapshot-id": "3"})");
  CHECK(as_json("snapshot.name=a,,b") == R"({"snapshot-name": "a,b"})");
  CHECK(parse_snapshot("snapshot.foo=1").error().message() ==
        "a snapshot is named by snapshot.id=ID, snapshot.name=NAME or both, not by 'snapshot.foo'");
  CHECK(parse_snapshot("snapshot.id=1,x=2").error().message() ==
        "a snapshot is named by snapshot.id=ID, snapshot.name=NAME or both, not by 'x'");
}

TEST_CASE("snapshots are a table for people") {
  ::setenv("TZ", "UTC", 1);
  const std::vector<snapshot_info> all = {
      {.id = "1",
       .name = "one",
       .date_seconds = 1'795'767'306,
       .date_nanoseconds = 5,
       .vm_clock_nanoseconds = (101 * 3600 + 61) * u64{1'000'000'000} + 1'234'567,
       .icount = {},
       .vm_state_length = 3 << 20},
      {.id = "2", .name = "a name of more than sixteen bytes", .icount = 0}};
  const value v = snapshots_value(all);
  CHECK(
      render_snapshots(v) ==
      "Snapshot list:\n"
      "ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT\n"
      "1         one                 3 MiB 2026-11-27 08:15:06101:01:01.001           \n"
      "2         a name of more than sixteen bytes      0 B 1970-01-01 00:00:00 00:00:00.000      "
      "    0\n");
  CHECK(to_json((*v.as_list())[0]) ==
        R"({"vm-clock-nsec": 1234567, "name": "one", "date-sec": 1795767306, "date-nsec": 5, )"
        R"("vm-clock-sec": 363661, "id": "1", "vm-state-size": 3145728})");
  CHECK((*v.as_list())[1].find("icount") != nullptr);
}
