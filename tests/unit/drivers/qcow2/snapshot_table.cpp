// SPDX-License-Identifier: MIT
// The pure parts of internal snapshots: the table from and to bytes, ids, what tables refer to, and
// what is refused.
#include "drivers/format/qcow2/snapshot_table.h"
#include "drivers/format/qcow2/image.h"
#include "tests/unit/lib/graph_bench.h"

#include <cerrno>

using namespace bgfs;
using namespace bgfs::qcow2;
using bgfs::test::pattern;

namespace {

using bytes = std::vector<std::byte>;

snapshot sample(std::string id, std::string name) {
  return {.l1 = host_offset(0x40000),
          .l1_entries = 3,
          .id = std::move(id),
          .name = std::move(name),
          .date_seconds = 1,
          .date_nanoseconds = 2,
          .vm_clock_nanoseconds = 3,
          .vm_state_length = 0x100000005,
          .disk_length = 0x9000,
          .icount = 77,
          .extra = bytes(snapshot_extra_written)};
}

snapshot_table parse(const bytes& b, u32 count) {
  const auto parsed = parse_snapshots({}, b, count);
  REQUIRE(parsed.has_value());
  REQUIRE(parsed->has_value());
  return **parsed;
}

} // namespace

TEST_CASE("qcow2 snapshot table: what is written is read again, also extra data nobody knows") {
  for (const unsigned version : {2u, 3u}) {
    std::vector<snapshot> all = {sample("1", "a"), sample("2", "longer"), sample("", "")};
    all[1].extra = pattern(100, 1);
    all[2].icount.reset();
    const auto written = serialise_snapshots(all, version, 0x5000);
    REQUIRE(written.has_value());
    const snapshot_table table = parse(*written, 3);
    CHECK(align_up(table.bytes, 8) == written->size());
    REQUIRE(table.snapshots.size() == 3);
    for (std::size_t i = 0; i < 3; i++) {
      snapshot expected = all[i];
      expected.extra = table.snapshots[i].extra;
      CHECK(table.snapshots[i] == expected);
    }
    CHECK(std::ranges::equal(std::span(table.snapshots[1].extra).subspan(24),
                             std::span(all[1].extra).subspan(24)));
    const auto again = serialise_snapshots(table.snapshots, version, 0x5000);
    CHECK(*again == *written);
  }
}

TEST_CASE("qcow2 snapshot table: version 3 records the length of the disk, version 2 need not") {
  snapshot s = sample("1", "a");
  s.extra.clear();
  s.icount.reset();
  s.disk_length.reset();
  s.vm_state_length = 9;
  const snapshot old = parse(*serialise_snapshots(std::span(&s, 1), 2, 0x5000), 1).snapshots[0];
  CHECK(!old.disk_length);
  CHECK(old.vm_state_length == 9);
  CHECK(to_info(old, 0x6000).disk_length == 0x6000);
  const snapshot now = parse(*serialise_snapshots(std::span(&s, 1), 3, 0x5000), 1).snapshots[0];
  CHECK(now.disk_length == 0x5000);
  CHECK(now.vm_state_length == 9);
  CHECK(!now.icount);
}

TEST_CASE("qcow2 snapshot table: the last entry may end with the file") {
  const snapshot s = sample("1", "e");
  const auto written = *serialise_snapshots(std::span(&s, 1), 3, 0);
  const bytes unpadded(written.begin(), written.begin() + 40 + 24 + 2);
  CHECK(parse(unpadded, 1).bytes == 66);
  CHECK(!parse_snapshots({}, unpadded, 2)->has_value());
  CHECK(!parse_snapshots({}, std::span(unpadded).first(65), 1)->has_value());
}

TEST_CASE("qcow2 snapshot table: more than there may be is refused with EFBIG") {
  std::vector<snapshot> many(65537, sample("1", "a"));
  auto refused = serialise_snapshots(many, 3, 0);
  REQUIRE(!refused);
  CHECK(refused.error().os_error() == EFBIG);
  CHECK(refused.error().kind() == error_kind::out_of_range);
  CHECK(refused.error().message() == "an image holds at most 65536 snapshots; delete one first");
  many.pop_back();
  CHECK(serialise_snapshots(many, 3, 0).has_value());
  for (snapshot& s : many)
    s.name.assign(2000, 'n');
  refused = serialise_snapshots(many, 3, 0);
  REQUIRE(!refused);
  CHECK(refused.error().os_error() == EFBIG);
  CHECK(refused.error().message() ==
        "the snapshot table would be longer than 67108864 bytes; delete a snapshot first");
}

TEST_CASE("qcow2 snapshot table: a new id is one more than the largest number") {
  std::vector<snapshot> all;
  CHECK(next_snapshot_id(all) == "1");
  for (const char* id : {"7", "3", "12", "x99", "", "8y"})
    all.push_back(sample(id, "s"));
  CHECK(next_snapshot_id(all) == "13");
  all.push_back(sample("18446744073709551615", "s"));
  const std::string wrapped = next_snapshot_id(all);
  for (const snapshot& s : all)
    CHECK(s.id != wrapped);
}

TEST_CASE("qcow2 references: data runs, compressed clusters, and entries that cannot be") {
  using kind = host_reference::kind;
  const entry_rules rules{{.cluster_bits = 12}, 3};
  bytes slice(4096);
  const auto put = [&](u64 index, u64 entry) { store(std::span(slice), be64(entry), index * 8); };
  put(0, 0x5000 | entry_copied);
  put(1, 0x6000);
  put(2, entry_zero);
  put(3, 0x7000 | entry_zero);
  put(4, 0x9000);
  put(5, entry_compressed | u64{3} << 58 | 0xae00); // 4 sectors from 0xae00 on: two clusters
  const auto found = references_of(rules, slice);
  REQUIRE(found.has_value());
  const std::vector<host_reference> expected = {
      {kind::data, {5, 3}}, {kind::data, {9, 1}}, {kind::compressed, {10, 2}}};
  CHECK(*found == expected);
  CHECK(clear_copied(rules.g, slice));
  CHECK(!clear_copied(rules.g, slice));
  CHECK(*references_of(rules, slice) == expected);
  put(7, 0x9200);
  CHECK(references_of(rules, slice).error().message() ==
        "entry 7 is invalid: its cluster offset 0x9200 is not aligned to the cluster size 0x1000");
}

TEST_CASE("qcow2 snapshots: external data files have none") {
  header h;
  CHECK(check_may_have_snapshots(h).has_value());
  h.incompatible = incompatible_bit::data_file;
  CHECK(check_may_have_snapshots(h).error().message().contains(
      "an image with an external data file cannot have internal snapshots"));
}

TEST_CASE("qcow2 snapshots: a version 2 disk keeps its length") {
  header h;
  h.version = 2;
  h.disk_length = 0x9000;
  const snapshot s = sample("1", "a");
  CHECK(check_may_revert(h, s).has_value());
  h.disk_length = 0x8000;
  CHECK(check_may_revert(h, s).error().message() ==
        "snapshot 'a' has 36864 bytes and the disk 32768; a version 2 image with snapshots cannot "
        "change its length, convert it to version 3");
  h.version = 3;
  CHECK(check_may_revert(h, s).has_value());
}
