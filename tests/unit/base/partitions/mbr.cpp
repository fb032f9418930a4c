// SPDX-License-Identifier: MIT
#include "tests/unit/base/partitions/made_disk.h"

#include "graph/base/partitions/file_system.h"

using namespace bgfs;

namespace {

constexpr u64 length = u64{8} << 20;

made_disk fat_disk() {
  made_disk d(length);
  d.magic();
  std::memcpy(d.bytes.data(), "\xeb\x3c\x90MSDOS5.0", 11);
  d.put(11, le16(512)).put(13, u8{4}).put(14, le16(1)).put(16, u8{2});
  d.put(19, le16(16384)).put(21, u8{0xf8}).put(22, le16(16));
  return d;
}

std::string_view name_of(const made_disk& d) {
  disk_sample sample(d.bytes.size());
  while (true) {
    const auto found = find_file_system(sample, {0, d.bytes.size()});
    if (found)
      return *found == nullptr ? "" : (*found)->name;
    const auto part = std::span(d.bytes).subspan(found.error().offset, found.error().length);
    sample.add(found.error(), {part.begin(), part.end()});
  }
}

} // namespace

TEST_CASE("mbr: primary partitions are 1 to 4, with a uuid made of the signature") {
  made_disk d(length);
  d.put(440, le32(0x1234abcd)).mbr_entry(0, 0, 0x83, 2048, 100, 0x80);
  d.mbr_entry(0, 3, 0x07, 4096, 1);
  const partition_table t = d.scan();
  CHECK(t.kind == table_kind::mbr);
  CHECK(t.id == "0x1234abcd");
  CHECK(t.problems.empty());
  REQUIRE(t.partitions.size() == 2);
  CHECK(t.find(1)->place == byte_range{2048 * 512, 100 * 512});
  CHECK(t.find(1)->uuid == "1234abcd-01");
  CHECK(t.find(1)->type == "0x83");
  CHECK(t.find(1)->is_bootable);
  CHECK(t.find(4)->type == "0x07");
}

TEST_CASE("mbr: logical partitions begin with 5, whatever their records skip") {
  made_disk d(length);
  d.mbr_entry(0, 0, 0x83, 64, 64).mbr_entry(0, 1, 0x0f, 1000, 8000);
  d.mbr_entry(1000 * 512, 0, 0x83, 10, 90).mbr_entry(1000 * 512, 1, 0x05, 200, 100);
  d.mbr_entry(1200 * 512, 0, 0x00, 10, 90).mbr_entry(1200 * 512, 1, 0x05, 400, 100);
  d.mbr_entry(1400 * 512, 0, 0x82, 20, 30);
  const partition_table t = d.scan();
  CHECK(t.problems.empty());
  REQUIRE(t.partitions.size() == 4);
  CHECK(t.find(2)->is_container);
  CHECK_FALSE(t.find(2)->has_bytes());
  CHECK(t.find(5)->place == byte_range{1010 * 512, 90 * 512});
  CHECK(t.find(6)->place == byte_range{1420 * 512, 30 * 512});
}

TEST_CASE("mbr: sectors of 4096 bytes are told by where the first extended record lies") {
  made_disk d(length);
  d.mbr_entry(0, 0, 0x83, 64, 64).mbr_entry(0, 1, 0x05, 200, 800);
  d.mbr_entry(u64{200} * 4096, 0, 0x83, 10, 90);
  const partition_table t = d.scan();
  CHECK(t.sector_length == 4096);
  CHECK(t.find(1)->place == byte_range{u64{64} * 4096, u64{64} * 4096});
  CHECK(t.find(5)->place == byte_range{u64{210} * 4096, u64{90} * 4096});
}

TEST_CASE("mbr: chains of records that come back, break, lead away or go on are ended") {
  made_disk loop(length);
  loop.mbr_entry(0, 0, 0x05, 1000, 8000);
  loop.mbr_entry(1000 * 512, 0, 0x83, 10, 20).mbr_entry(1000 * 512, 1, 0x05, 100, 50);
  loop.mbr_entry(1100 * 512, 0, 0x83, 10, 20).mbr_entry(1100 * 512, 1, 0x05, 0, 50);
  partition_table t = loop.scan();
  CHECK(has_problem(t, "comes back to the one at 0x7d000"));
  CHECK(t.partitions.size() == 3);

  made_disk itself(length);
  itself.mbr_entry(0, 0, 0x05, 0, 8000).mbr_entry(0, 1, 0x83, 10, 20);
  t = itself.scan();
  CHECK(has_problem(t, "comes back to the one at 0x0"));

  made_disk broken(length);
  broken.mbr_entry(0, 0, 0x05, 1000, 8000);
  CHECK(has_problem(broken.scan(), "there is no extended boot record at 0x7d000"));

  made_disk away(length);
  away.mbr_entry(0, 0, 0x05, 1000, 8000).mbr_entry(1000 * 512, 1, 0x05, 0xffffffff, 50);
  CHECK(has_problem(away.scan(), "an extended boot record would lie at 0x2000007ce00, behind"));

  made_disk unreadable(length);
  unreadable.mbr_entry(0, 0, 0x05, 1000, 8000).magic(1000 * 512);
  unreadable.unreadable = {{1000 * 512, 512}};
  CHECK(has_problem(unreadable.scan(), "the extended boot record at 0x7d000 cannot be read"));

  made_disk endless(length);
  endless.mbr_entry(0, 0, 0x05, 1, 16000);
  for (u32 i = 0; i < 600; i++)
    endless.mbr_entry((1 + i * 20) * 512, 0, 0x83, 1, 2)
        .mbr_entry((1 + i * 20) * 512, 1, 0x05, (i + 1) * 20, 20);
  t = endless.scan();
  CHECK(has_problem(t, "more than 256 extended boot records follow each other"));
  CHECK(t.partitions.size() == 257);
}

TEST_CASE("mbr: partitions outside the disk or their container, and overlaps, are said") {
  made_disk d(length);
  d.mbr_entry(0, 0, 0x83, 16000, 1000).mbr_entry(0, 1, 0x83, 0xffffff00, 0xffffffff);
  d.mbr_entry(0, 2, 0x05, 1000, 100).mbr_entry(0, 3, 0x83, 16100, 10);
  d.mbr_entry(1000 * 512, 0, 0x83, 10, 5000).mbr_entry(1000 * 512, 2, 0x83, 9000, 9000);
  const partition_table t = d.scan();
  CHECK(has_problem(t, "partition 1 ends at 0x84d000, behind the end of the disk (0x800000)"));
  CHECK(t.find(1)->place == byte_range{16000 * 512, 384 * 512});
  CHECK(has_problem(t, "partition 2 begins at 0x1fffffe0000"));
  CHECK(has_problem(t, "logical partition 5 lies at [0x7e400, 0x2ef400), outside its extended"));
  CHECK(has_problem(t, "partitions 1 and 4 overlap"));
  CHECK(t.find(6) == nullptr);
}

TEST_CASE("mbr: a boot sector of a file system is no table") {
  CHECK(fat_disk().scan().kind == table_kind::none);
  CHECK(name_of(fat_disk()) == "vfat");
  // Even if where the table would be is what could be one.
  made_disk fat = fat_disk();
  fat.mbr_entry(0, 0, 0x83, 64, 64);
  CHECK(fat.scan().kind == table_kind::none);
  for (const char* name : {"NTFS    ", "EXFAT   ", "-FVE-FS-"}) {
    made_disk d(length);
    d.mbr_entry(0, 0, 0x83, 64, 64);
    CHECK(d.scan().kind == table_kind::mbr);
    std::memcpy(d.bytes.data() + 3, name, 8);
    CHECK(d.scan().kind == table_kind::none);
  }
  made_disk flags(length);
  flags.mbr_entry(0, 0, 0x83, 64, 64, 0x41);
  CHECK(flags.scan().kind == table_kind::none);
  made_disk aix(length);
  aix.mbr_entry(0, 0, 0x83, 64, 64);
  std::memcpy(aix.bytes.data(), "\xc9\xc2\xd4\xc1", 4);
  CHECK(aix.scan().kind == table_kind::none);
}

TEST_CASE("mbr: boot code that only begins like that of FAT hides no table") {
  made_disk d(length);
  d.mbr_entry(0, 0, 0x83, 64, 64).put(0, u8{0xeb}).put(1, u8{0x63}).put(2, u8{0x90});
  CHECK(d.scan().kind == table_kind::mbr);
}

TEST_CASE("mbr: short and empty disks have no table") {
  for (const u64 l : {u64{0}, u64{1}, u64{511}, u64{512}, u64{513}, u64{1024}, u64{9000}}) {
    CHECK(made_disk(l).scan().kind == table_kind::none);
    if (l < 512)
      continue;
    CHECK(made_disk(l).magic().scan().kind == table_kind::mbr);
    CHECK(made_disk(l).protect().scan().kind == table_kind::none);
  }
}

TEST_CASE("file systems are known by their marks") {
  struct place {
    std::string_view name;
    u64 offset;
    std::string_view bytes;
  };
  using namespace std::string_view_literals;
  for (const place& p : {place{"xfs", 0, "XFSB"}, place{"crypto_LUKS", 0, "LUKS\xba\xbe"sv},
                         place{"btrfs", 65600, "_BHRfS_M"}, place{"iso9660", 32769, "CD001"},
                         place{"swap", 4086, "SWAPSPACE2"}, place{"ext2", 1080, "\x53\xef"sv},
                         place{"LVM2_member", 512, "LABELONE"}, place{"ntfs", 3, "NTFS    "}}) {
    made_disk d(length);
    std::memcpy(d.bytes.data() + p.offset, p.bytes.data(), p.bytes.size());
    CHECK(name_of(d) == p.name);
  }
  made_disk four(length);
  four.put(1080, le16(0xef53)).put(1120, le32(0x42)); // extents, filetype
  CHECK(name_of(four) == "ext4");
  CHECK(name_of(made_disk(length)).empty());
  CHECK(name_of(made_disk(600)).empty());
}
