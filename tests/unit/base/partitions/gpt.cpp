// SPDX-License-Identifier: MIT
#include "tests/unit/base/partitions/made_disk.h"

#include "graph/base/partitions/type_name.h"

using namespace bgfs;

namespace {

constexpr u64 MiB_length = u64{1} << 20;

made_disk two_partitions(u64 sector = 512) {
  made_disk d(4 * MiB_length, sector);
  d.gpt({{64, 127, "boot"}, {}, {128, 255, "root file system"}});
  return d;
}

} // namespace

TEST_CASE("gpt: the checksum is CRC-32") {
  CHECK(crc32_of(std::as_bytes(std::span("123456789", 9))) == 0xcbf43926);
  CHECK(crc32_of({}) == 0);
}

TEST_CASE("gpt: entries have the numbers of their places, names, and byte ranges") {
  for (const u64 sector : {512, 1024, 2048, 4096}) {
    CAPTURE(sector);
    const partition_table t = two_partitions(sector).scan();
    CHECK(t.kind == table_kind::gpt);
    CHECK(t.sector_length == sector);
    CHECK(t.problems.empty());
    CHECK(t.id == "000000dd-0000-0000-0000-000000000000");
    REQUIRE(t.partitions.size() == 2);
    CHECK(t.partitions[0].number == 1);
    CHECK(t.partitions[0].place == byte_range{64 * sector, 64 * sector});
    CHECK(t.partitions[0].label == "boot");
    CHECK(t.partitions[0].uuid == "00000001-0000-0000-0000-000000000000");
    CHECK(t.partitions[1].number == 3);
    CHECK(t.partitions[1].label == "root file system");
    CHECK(t.find(3) == &t.partitions[1]);
    CHECK(t.find(2) == nullptr);
  }
}

TEST_CASE("gpt: types have names") {
  CHECK(partition_type_name("0fc63daf-8483-4772-8e79-3d69d8477de4") == "linux");
  CHECK(partition_type_name("0x83") == "linux");
  CHECK(partition_type_name("0xfe").empty());
}

TEST_CASE("gpt: entries may be longer than 128 bytes") {
  made_disk d(4 * MiB_length);
  d.entries_length = 512;
  d.gpt({{64, 127, "a"}, {128, 130, "b"}});
  const partition_table t = d.scan();
  CHECK(t.problems.empty());
  REQUIRE(t.partitions.size() == 2);
  CHECK(t.partitions[1].place == byte_range{128 * 512, 3 * 512});
}

TEST_CASE("gpt: a damaged primary header gives way to the backup, which is said") {
  made_disk d = two_partitions();
  d.put(512 + 60, u8{7});
  const partition_table t = d.scan();
  CHECK(t.kind == table_kind::gpt);
  CHECK(t.partitions.size() == 2);
  CHECK(has_problem(t, "the primary GPT at 0x200 is not valid: its checksum is"));
  CHECK(has_problem(t, "the backup GPT in block 8191 is used instead"));
}

TEST_CASE("gpt: damaged primary entries give way to the backup") {
  made_disk d = two_partitions();
  d.put(2 * 512 + 33, u8{7});
  const partition_table t = d.scan();
  CHECK(has_problem(t, "the checksum of its entries is"));
  CHECK(has_problem(t, "is used instead"));
  CHECK(t.find(1)->place == byte_range{64 * 512, 64 * 512});
}

TEST_CASE("gpt: the backup of a disk that has grown is found where the primary header says") {
  made_disk d = two_partitions();
  d.put(2 * 512 + 33, u8{7}); // entries; the header is valid
  d.bytes.resize(6 * MiB_length);
  CHECK(d.scan().partitions.size() == 2);
  made_disk valid = two_partitions();
  valid.bytes.resize(6 * MiB_length);
  const partition_table t = valid.scan();
  CHECK(t.partitions.size() == 2);
  CHECK(has_problem(t, "the disk has grown"));
}

TEST_CASE("gpt: nothing is shown when both are damaged") {
  made_disk d = two_partitions();
  d.put(512 + 60, u8{7}).put(d.bytes.size() - 512 + 60, u8{7});
  const partition_table t = d.scan();
  CHECK(t.kind == table_kind::none);
  CHECK(t.partitions.empty());
  CHECK(has_problem(t, "only protects a GPT, and there is no valid one"));
}

TEST_CASE("gpt: a damaged or different backup is said") {
  made_disk damaged = two_partitions();
  damaged.put(damaged.bytes.size() - 512 + 60, u8{7});
  CHECK(has_problem(damaged.scan(), "the backup GPT in block 8191 is not valid: its checksum is"));
  made_disk other = two_partitions();
  other.write_entries(other.last_block() - 32, {{100, 110, "x"}});
  other.seal(other.last_block());
  const partition_table t = other.scan();
  CHECK(has_problem(t, "names other partitions"));
  CHECK(t.find(1)->place == byte_range{64 * 512, 64 * 512});
}

TEST_CASE("gpt: blocks that cannot be read are damage like any other") {
  made_disk d = two_partitions();
  d.unreadable = {{9000, 1}}; // behind what is read first
  partition_table t = d.scan();
  CHECK(t.partitions.size() == 2);
  CHECK(has_problem(t, "its entries at 0x400 cannot be read"));
  d.unreadable = {{d.bytes.size() - 512, 1}};
  t = d.scan();
  CHECK(t.partitions.size() == 2);
  CHECK(has_problem(t, "block 8191 cannot be read"));
  d.unreadable = {{0, 1}};
  CHECK(has_problem(d.scan(), "the first blocks of the disk cannot be read"));
}

TEST_CASE("gpt: a disk that was cut off shows what is left of its partitions") {
  made_disk d = two_partitions();
  d.bytes.resize(200 * 512);
  partition_table t = d.scan();
  CHECK(t.find(1)->place == byte_range{64 * 512, 64 * 512});
  CHECK(t.find(3)->place == byte_range{128 * 512, 72 * 512});
  CHECK(has_problem(t, "the backup GPT belongs into block 8191, the disk ends with block 199"));
  CHECK(has_problem(t, "partition 3 ends at 0x20000, behind the end of the disk (0x19000)"));
  d.bytes.resize(100 * 512);
  t = d.scan();
  CHECK(t.find(1)->place == byte_range{64 * 512, 36 * 512});
  CHECK_FALSE(t.find(3)->has_bytes());
  CHECK(has_problem(t, "partition 3 begins at 0x10000, behind the end of the disk"));
}

TEST_CASE("gpt: hostile headers are refused") {
  struct change {
    u64 offset;
    u64 value;
    const char* sentence;
  };
  const change changes[] = {
      {12, 0, "it claims 0 bytes"},
      {12, 513, "it claims 513 bytes"},
      {84, 64, "its entries have 64 bytes"},
      {84, 192, "its entries have 192 bytes"},
      {84, 8192, "its entries have 8192 bytes"},
      {80, 0xffffffff, "bytes are taken at most"},
      {80, 8193, "bytes are taken at most"},
      {72, 8192, "where the disk has no room"},
      {72, ~u64{0}, "where the disk has no room"},
      {72, 1, "where the disk has no room"},
      {24, 5, "it says it lies in block 5"},
  };
  for (const change& c : changes) {
    made_disk d = two_partitions();
    const bool is_wide = c.offset == 72 || c.offset == 24;
    if (is_wide)
      d.put(512 + c.offset, le64(c.value));
    else
      d.put(512 + c.offset, le32(static_cast<u32>(c.value)));
    d.seal(1);
    const partition_table t = d.scan();
    CAPTURE(c.sentence);
    CAPTURE(t.problems.empty() ? "" : t.problems[0]);
    CHECK(has_problem(t, c.sentence));
    CHECK(t.partitions.size() == 2); // of the backup
  }
}

TEST_CASE("gpt: impossible, overlapping and misplaced entries are said") {
  made_disk d(4 * MiB_length);
  d.gpt({{200, 100}, {64, ~u64{0}}, {64, 127}, {100, 150}, {2, 10}, {300, 310}});
  const partition_table t = d.scan();
  CHECK(has_problem(t, "partition 1 reaches from block 200 to 100, which is impossible"));
  CHECK(has_problem(t, "partition 2 reaches from block 64 to 18446744073709551615"));
  CHECK(has_problem(t, "partitions 3 and 4 overlap: [0x8000, 0x10000) and [0xc800, 0x12e00)"));
  CHECK(has_problem(t, "partition 5 lies in blocks 2 to 10, outside those"));
  CHECK(t.find(1) == nullptr);
  CHECK(t.find(3) != nullptr);
  CHECK(t.find(6) != nullptr);
}

TEST_CASE("gpt: problems are bounded") {
  made_disk d(4 * MiB_length);
  d.gpt(std::vector<made_entry>(128, {9, 5}));
  const partition_table t = d.scan();
  CHECK(t.problems.size() == table_problems_max);
  CHECK(t.problems.back() == "there is more, which is not listed");
}

TEST_CASE("gpt: names are UTF-16, halves of pairs are replaced") {
  made_disk d(4 * MiB_length);
  d.protect();
  d.write_entries(2, {{64, 127}});
  const u16 units[] = {0xe9, 0x20ac, 0xd83d, 0xde00, 0xd83d, 'x', 0xdc00, 0, 'y'};
  for (std::size_t i = 0; i < std::size(units); i++)
    d.put(1024 + 56 + 2 * i, le16(units[i]));
  d.write_header(1, d.last_block(), 2);
  CHECK(d.scan().find(1)->label == "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xef\xbf\xbdx\xef\xbf\xbd");
}

TEST_CASE("gpt: it wins over the partitions of a hybrid MBR") {
  made_disk d = two_partitions();
  d.mbr_entry(0, 1, 0x83, 64, 64);
  const partition_table t = d.scan();
  CHECK(t.kind == table_kind::gpt);
  CHECK(t.partitions.size() == 2);
  CHECK(has_problem(t, "the MBR names 1 of the partitions as well"));
}

TEST_CASE("gpt: without a protective MBR it does not count") {
  made_disk d = two_partitions();
  d.mbr_entry(0, 0, 0x83, 64, 64);
  const partition_table t = d.scan();
  CHECK(t.kind == table_kind::mbr);
  CHECK(has_problem(t, "a GPT header lies at 0x200, but the MBR does not protect it"));
  made_disk wiped = two_partitions();
  std::fill_n(wiped.bytes.begin(), 512, std::byte{});
  CHECK(wiped.scan().kind == table_kind::none);
}
