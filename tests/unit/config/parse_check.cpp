// SPDX-License-Identifier: MIT
#include "config/render_check.h"
#include "config/snapshot_text.h"

#include <doctest/doctest.h>

using namespace bgfs;

TEST_CASE("what a check found survives its JSON, and what is not there is 0") {
  const check_result found{.corruptions = 1,
                           .leaks = 2,
                           .check_errors = 3,
                           .corruptions_fixed = 4,
                           .leaks_fixed = 5,
                           .total_clusters = 6,
                           .allocated_clusters = 7,
                           .fragmented_clusters = 8,
                           .compressed_clusters = 9,
                           .image_end_offset = 10};
  CHECK(parse_check(check_value(found, "a.qcow2", "qcow2")) == found);
  CHECK(parse_check(check_value({}, "a.qcow2", "qcow2")) == check_result{});
  CHECK(parse_check(value::map()) == check_result{});
  value odd = value::map();
  odd.set("leaks", "many");
  odd.set("corruptions", -1);
  CHECK(parse_check(odd) == check_result{});
}

TEST_CASE("the list of snapshots is read back by name and id; what is no snapshot is left out") {
  const std::vector<snapshot_info> all = {{.id = "1", .name = "mon"}, {.id = "2", .name = "1"}};
  const std::vector<snapshot_info> back = parse_snapshots(snapshots_value(all));
  REQUIRE(back.size() == 2);
  CHECK(back[0].id == "1");
  CHECK(back[1].name == "1");
  value::list odd;
  odd.emplace_back("text");
  value half = value::map();
  half.set("id", "3");
  odd.push_back(std::move(half));
  CHECK(parse_snapshots(value(std::move(odd))).empty());
  CHECK(parse_snapshots(value("none")).empty());
}

TEST_CASE("a snapshot is chosen by id or by name, as the action prefers") {
  const std::vector<snapshot_info> all = {{.id = "1", .name = "2"}, {.id = "2", .name = "mon"}};
  CHECK(choose_snapshot(all, "2", true)->id == "2");    // to apply: the id
  CHECK(choose_snapshot(all, "2", false)->name == "2"); // to delete: the name
  CHECK(choose_snapshot(all, "1", false)->id == "1");   // which only an id can be
  CHECK(choose_snapshot(all, "mon", true)->name == "mon");
  const auto both = choose_snapshot(all, "snapshot.id=2,snapshot.name=mon", true);
  REQUIRE(both.has_value());
  CHECK((both->id == "2" && both->name == "mon"));
  CHECK_FALSE(choose_snapshot(all, "snapshot.date=1", true).has_value());
}
