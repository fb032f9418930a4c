// SPDX-License-Identifier: MIT
// Tables of the pure parts: headers, entries, refcounts, snapshots, bitmaps, changes of entries.
#include "drivers/format/qcow2/bitmap_table.h"
#include "drivers/format/qcow2/decompress.h"
#include "drivers/format/qcow2/entry_change.h"
#include "drivers/format/qcow2/header.h"
#include "drivers/format/qcow2/refcount_block.h"
#include "drivers/format/qcow2/snapshot_table.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"

using namespace bgfs;
using namespace bgfs::qcow2;

namespace {

using bytes = std::vector<std::byte>;

header valid_header() {
  header h;
  h.disk_length = 1 << 20;
  h.l1_entries = 1;
  h.l1 = host_offset(0x30000);
  h.refcount_table = host_offset(0x10000);
  h.refcount_table_clusters = 1;
  return h;
}

bytes valid_bytes() {
  auto made = serialise_header(valid_header());
  REQUIRE(made.has_value());
  return *std::move(made);
}

void put32(bytes& b, u64 at, u32 v) {
  store(std::span(b), be32(v), at);
}
void put64(bytes& b, u64 at, u64 v) {
  store(std::span(b), be64(v), at);
}

void point_to_luks(bytes& b, u32 method, u32 length, u64 at, u64 bytes_there) {
  put32(b, 32, method);
  put32(b, 112, 0x0537be77);
  put32(b, 116, length);
  put64(b, 120, at);
  put64(b, 128, bytes_there);
}

struct bad_header {
  const char* what;
  void (*spoil)(bytes&);
  const char* message;
};

const bad_header bad_headers[] = {
    {"empty", [](bytes& b) { b.clear(); }, "the file is 0 bytes long, a qcow2 header has at least"},
    {"magic", [](bytes& b) { put32(b, 0, 0x4d5a9000); },
     "not a qcow2 image: it begins with 0x4d5a9000, not with 0x514649fb"},
    {"version", [](bytes& b) { put32(b, 4, 4); }, "qcow2 version 4 is not supported"},
    {"cluster bits 8", [](bytes& b) { put32(b, 20, 8); }, "a cluster size of 2^8 bytes"},
    {"cluster bits 22", [](bytes& b) { put32(b, 20, 22); }, "a cluster size of 2^22 bytes"},
    {"cut in version 3", [](bytes& b) { b.resize(90); }, "the file ends after 90 bytes, inside"},
    {"header length", [](bytes& b) { put32(b, 100, 108); }, "header length 108 is not a multiple"},
    {"long header", [](bytes& b) { put32(b, 100, 0x10008); },
     "header length 65544 is not a multiple of 8 between 104 and the cluster size"},
    {"cut in the header",
     [](bytes& b) {
       put32(b, 100, 200);
       b.resize(150);
     },
     "the file ends after 150 bytes, inside the header of 200"},
    {"refcount order", [](bytes& b) { put32(b, 96, 7); }, "refcount order 7 is larger than 6"},
    {"LUKS without a header", [](bytes& b) { put32(b, 32, 2); },
     "the image is encrypted with LUKS, but its pointer to the encryption header has 0 bytes"},
    {"a pointer of another length", [](bytes& b) { point_to_luks(b, 2, 15, 0x40000, 0x10000); },
     "its pointer to the encryption header has 15 bytes, not 16"},
    {"a pointer without LUKS", [](bytes& b) { point_to_luks(b, 0, 16, 0x40000, 0x10000); },
     "which only images encrypted with LUKS have; its encryption method is 'none'"},
    {"a pointer with AES", [](bytes& b) { point_to_luks(b, 1, 16, 0x40000, 0x10000); },
     "its encryption method is 'aes'"},
    {"encryption header unaligned", [](bytes& b) { point_to_luks(b, 2, 16, 0x40200, 0x10000); },
     "the encryption header at 0x40200 is not aligned to the cluster size 0x10000"},
    {"encryption header at 0", [](bytes& b) { point_to_luks(b, 2, 16, 0, 0x10000); },
     "the encryption header is at offset 0"},
    {"encryption header empty", [](bytes& b) { point_to_luks(b, 2, 16, 0x40000, 0); },
     "the encryption header is 0x0 bytes long; possible are 1 to 0x1000000"},
    {"encryption header too long", [](bytes& b) { point_to_luks(b, 2, 16, 0x40000, ~u64{0}); },
     "the encryption header is 0xffffffffffffffff bytes long"},
    {"encryption header beyond everything",
     [](bytes& b) { point_to_luks(b, 2, 16, 0xffffffffffff0000, 0x10000); },
     "ends beyond the largest possible file"},
    {"encrypted disk of half a sector",
     [](bytes& b) {
       put32(b, 32, 1);
       put64(b, 24, 0xff100);
     },
     "the disk of an encrypted image is 0xff100 bytes long, which is no multiple of 512"},
    {"encryption 3", [](bytes& b) { put32(b, 32, 3); }, "encryption method 3 is not one of"},
    {"raw data file without a data file", [](bytes& b) { put64(b, 88, 2); },
     "claims that its external data file is raw (autoclear bit 1), but it has no external data"},
    {"snapshots with a data file",
     [](bytes& b) {
       put64(b, 72, 4);
       put32(b, 60, 3);
     },
     "the image has 3 snapshots, which are impossible with an external data file"},
    {"unknown feature", [](bytes& b) { put64(b, 72, u64{1} << 40); }, "incompatible bit 40"},
    {"compression without type", [](bytes& b) { put64(b, 72, 8); },
     "compression type 0 contradicts the compression type bit, which is set"},
    {"type without bit", [](bytes& b) { b[104] = std::byte{1}; },
     "compression type 1 contradicts the compression type bit, which is not set"},
    {"compression type 9",
     [](bytes& b) {
       put64(b, 72, 8);
       b[104] = std::byte{9};
     },
     "compression type 9 is not known"},
    {"extended L2 in small clusters",
     [](bytes& b) {
       put32(b, 20, 13);
       put64(b, 72, 16);
     },
     "extended L2 entries need clusters of at least 0x4000 bytes, not 0x2000"},
    {"backing name length",
     [](bytes& b) {
       put64(b, 8, 0x200);
       put32(b, 16, 1024);
     },
     "the backing file name is 1024 bytes long, more than 1023"},
    {"backing name place",
     [](bytes& b) {
       put64(b, 8, 0xfff0);
       put32(b, 16, 100);
     },
     "the backing file name at 0xfff0 of 100 bytes does not lie between"},
    {"backing name in the header",
     [](bytes& b) {
       put64(b, 8, 40);
       put32(b, 16, 10);
     },
     "the backing file name at 0x28 of 10 bytes does not lie between"},
    {"cut backing name",
     [](bytes& b) {
       put64(b, 8, 0x400);
       put32(b, 16, 100);
       b.resize(0x420);
     },
     "inside the backing file name at 0x400"},
    {"zero byte in the backing name",
     [](bytes& b) {
       put64(b, 8, 0x400);
       put32(b, 16, 4);
     },
     "the backing file name contains a zero byte"},
    {"extension length",
     [](bytes& b) {
       put32(b, 112, 0x12345678);
       put32(b, 116, 0xffffffff);
     },
     "header extension 0x12345678 at 0x70 claims 0xffffffff bytes"},
    {"L1 too long", [](bytes& b) { put32(b, 36, 0x400001); },
     "the L1 table has 4194305 entries, more than 4194304"},
    {"L1 too short", [](bytes& b) { put32(b, 36, 0); },
     "the L1 table has 0 entries, but a disk of 0x100000 bytes needs 1"},
    {"L1 unaligned", [](bytes& b) { put64(b, 40, 0x30200); },
     "the L1 table at 0x30200 is not aligned to the cluster size 0x10000"},
    {"L1 at 0", [](bytes& b) { put64(b, 40, 0); }, "the L1 table is at offset 0"},
    {"L1 beyond everything", [](bytes& b) { put64(b, 40, 0xffffffffffff0000); },
     "ends beyond the largest possible file"},
    {"disk too long", [](bytes& b) { put64(b, 24, ~u64{0}); }, "the disk is 0xffffffffffffffff"},
    {"no refcount table", [](bytes& b) { put32(b, 56, 0); }, "the image has no refcount table"},
    {"refcount table at 0", [](bytes& b) { put64(b, 48, 0); }, "the refcount table is at offset 0"},
    {"refcount table too long", [](bytes& b) { put32(b, 56, 129); },
     "the refcount table of 0x810000 bytes is larger than 0x800000"},
    {"refcount table unaligned", [](bytes& b) { put64(b, 48, 0x10001); },
     "the refcount table at 0x10001 is not aligned"},
    {"too many snapshots", [](bytes& b) { put32(b, 60, 65537); },
     "the image claims 65537 snapshots, more than 65536"},
    {"snapshots unaligned",
     [](bytes& b) {
       put32(b, 60, 1);
       put64(b, 64, 0x111);
     },
     "the snapshot table at 0x111 is not aligned"},
};

bytes bitmap_entry(u32 flags = 0, u8 type = 1, u8 granularity = 16, u64 table = 0x50000) {
  bytes b(32);
  bitmap_entry_wire wire;
  wire.table_offset = table;
  wire.table_entries = 1;
  wire.flags = flags;
  wire.type = type;
  wire.granularity_bits = granularity;
  wire.name_length = 3;
  wire.extra_length = 0;
  store(std::span(b), wire);
  return b;
}

} // namespace

TEST_CASE("qcow2 header: every contradiction is named") {
  for (const bad_header& c : bad_headers) {
    CAPTURE(c.what);
    bytes b = valid_bytes();
    c.spoil(b);
    const result<header> parsed = parse_header(b);
    REQUIRE(!parsed.has_value());
    CHECK_MESSAGE(parsed.error().message().contains(c.message), parsed.error().message());
  }
}

TEST_CASE("qcow2 header: unknown features are named by the image's own table") {
  header h = valid_header();
  header named = valid_header();
  add_feature_names(named);
  header_extension names = named.extensions.back();
  feature_name_wire row{0, 40, {}};
  std::ranges::copy(std::string_view("time travel\x01"), row.name.begin());
  names.bytes.resize(names.bytes.size() + sizeof row);
  store(std::span(names.bytes), row, names.bytes.size() - sizeof row);
  h.extensions.push_back(std::move(names));
  h.incompatible = u64{1} << 40 | u64{1} << 41;
  auto b = serialise_header(h);
  REQUIRE(b.has_value());
  const result<header> parsed = parse_header(*b);
  REQUIRE(!parsed.has_value());
  CHECK(parsed.error().kind() == error_kind::unsupported);
  CHECK(parsed.error().message().contains(
      "'time travel' (incompatible bit 40), incompatible bit 41; use a newer version"));
}

TEST_CASE("qcow2 header: what is not understood is written back as it was") {
  header h = valid_header();
  h.backing_file = "base.raw";
  h.unknown_fields = {std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0},
                      std::byte{0}, std::byte{0}, std::byte{7}, std::byte{9}, std::byte{0},
                      std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{5}};
  h.extensions.push_back({0xabcdef01, {std::byte{1}, std::byte{2}, std::byte{3}}});
  h.extensions.push_back({extension_type::backing_format, {std::byte{'r'}, std::byte{'a'}}});
  h.extensions.push_back({0xabcdef02, {}});
  const auto first = serialise_header(h);
  REQUIRE(first.has_value());
  const auto parsed = parse_header(*first);
  REQUIRE(parsed.has_value());
  CHECK(parsed->unknown_fields == h.unknown_fields);
  CHECK(parsed->backing_file == "base.raw");
  CHECK(parsed->backing_format() == "ra");
  const auto second = serialise_header(*parsed);
  REQUIRE(second.has_value());
  CHECK(*first == *second);
}

TEST_CASE("qcow2 header: version 2 has none of the fields of version 3") {
  header h = valid_header();
  h.version = 2;
  h.incompatible = 3; // not written
  const auto b = serialise_header(h);
  REQUIRE(b.has_value());
  const auto parsed = parse_header(*b);
  REQUIRE(parsed.has_value());
  CHECK(parsed->incompatible == 0);
  CHECK(parsed->g.refcount_order == 4);
}

TEST_CASE("qcow2 header: a backing name that does not fit is refused") {
  header h = valid_header();
  h.g.cluster_bits = 9;
  h.backing_file = std::string(500, 'x');
  const auto b = serialise_header(h);
  REQUIRE(!b.has_value());
  CHECK(b.error().message().contains("does not fit into the first cluster of 512 bytes"));
}

TEST_CASE("qcow2 header: a bitmaps extension counts only with its bit, and must be sound") {
  const auto with = [](u32 count, u32 reserved, u64 length, u64 offset, std::size_t cut = 24) {
    header h = valid_header();
    bitmaps_extension_wire wire{count, reserved, length, offset};
    bytes b(24);
    store(std::span(b), wire);
    b.resize(cut);
    h.extensions.push_back({extension_type::bitmaps, b});
    h.autoclear = autoclear_bit::bitmaps;
    return h;
  };
  CHECK(with(1, 0, 32, 0x40000).bitmaps()->has_value());
  header stale = with(0, 0, 32, 0x40000);
  stale.autoclear = 0;
  CHECK(!stale.bitmaps()->has_value());
  struct bad {
    header h;
    const char* message;
  };
  const bad table[] = {
      {with(0, 0, 32, 0x40000), "the image claims 0 bitmaps"},
      {with(65536, 0, 32, 0x40000), "the image claims 65536 bitmaps"},
      {with(1, 1, 32, 0x40000), "the reserved field of the bitmaps extension is 0x1"},
      {with(1, 0, u64{1} << 63, 0x40000), "the bitmap directory of 0x8000000000000000 bytes"},
      {with(1, 0, 32, 1), "the bitmap directory at 0x1 is not aligned"},
      {with(1, 0, 32, 0), "the bitmap directory is at offset 0"},
      {with(1, 0, 32, 0x40000, 20), "its bitmaps extension has 20 bytes, not 24"},
  };
  for (const bad& c : table) {
    const auto found = c.h.bitmaps();
    REQUIRE(!found.has_value());
    CHECK_MESSAGE(found.error().message().contains(c.message), found.error().message());
  }
}

TEST_CASE("qcow2 bitmaps: entries are checked and marked in place") {
  const geometry g;
  const u64 disk = 1 << 20;
  bytes two = bitmap_entry();
  const bytes second = bitmap_entry(2);
  two.insert(two.end(), second.begin(), second.end());
  const auto parsed = parse_bitmap_directory(g, two, 2, disk);
  REQUIRE(parsed.has_value());
  CHECK(!(*parsed)[0].is_in_use);
  mark_bitmaps_in_use(two, *parsed);
  const auto again = parse_bitmap_directory(g, two, 2, disk);
  REQUIRE(again.has_value());
  CHECK((*again)[0].flags == 1);
  CHECK((*again)[1].flags == 3);
  struct bad {
    bytes directory;
    u32 count;
    u64 disk;
    const char* message;
  };
  bytes unnamed = bitmap_entry();
  unnamed[18] = unnamed[19] = std::byte{0};
  const bad table[] = {
      {bitmap_entry(8), 1, disk, "bitmap 0 has unknown flags 0x8"},
      {bitmap_entry(0, 2), 1, disk, "bitmap 0 has the unknown type 0x2"},
      {bitmap_entry(0, 1, 8), 1, disk, "an impossible granularity of 2 to the power of 0x8"},
      {bitmap_entry(0, 1, 32), 1, disk, "an impossible granularity of 2 to the power of 0x20"},
      {bitmap_entry(0, 1, 16, 1), 1, disk, "its table at the impossible offset 0x1"},
      {bitmap_entry(0, 1, 9), 1, u64{1} << 40, "a table too small for the disk"},
      {unnamed, 1, disk, "a name of impossible length 0x0"},
      {bitmap_entry(), 2, disk, "the bitmap directory of 0x20 bytes ends inside entry 1 of 2"},
      {two, 1, disk, "the 1 entries of the bitmap directory take 0x20 bytes, not 0x40"},
  };
  for (const bad& c : table) {
    const auto found = parse_bitmap_directory(g, c.directory, c.count, c.disk);
    REQUIRE(!found.has_value());
    CHECK_MESSAGE(found.error().message().contains(c.message), found.error().message());
  }
  bytes entries(16);
  put64(entries, 8, 2);
  const result<> wrong = check_bitmap_table(g, entries);
  REQUIRE(!wrong.has_value());
  CHECK(wrong.error().message().contains("entry 1 of its table, 0x2, is impossible"));
  put64(entries, 8, 1);
  CHECK(check_bitmap_table(g, entries).has_value());
}

TEST_CASE("qcow2 snapshots: a table that does not end asks for more, a wrong one is named") {
  const geometry g;
  bytes b(64);
  snapshot_entry_wire wire{0x40000, 1, 1, 4, 0, 0, 0, 0, 16};
  store(std::span(b), wire);
  b[56] = std::byte{'7'};
  std::ranges::copy(std::as_bytes(std::span("name", 4)), b.begin() + 57);
  const auto parsed = parse_snapshots(g, b, 1);
  REQUIRE(parsed.has_value());
  REQUIRE(parsed->has_value());
  CHECK((*parsed)->bytes == 61); // the last entry need not be padded
  CHECK((*parsed)->snapshots[0].id == "7");
  CHECK((*parsed)->snapshots[0].name == "name");
  CHECK(!parse_snapshots(g, std::span(b).first(60), 1)->has_value());
  CHECK(!parse_snapshots(g, b, 2)->has_value());
  wire.extra_length = 1025;
  store(std::span(b), wire);
  CHECK(parse_snapshots(g, b, 1).error().message().contains("1025 bytes of extra data"));
  wire = {0x40001, 1, 1, 4, 0, 0, 0, 0, 16};
  store(std::span(b), wire);
  CHECK(parse_snapshots(g, b, 1).error().message().contains("snapshot 0 at 0x40001 is not at a"));
  wire = {0x40000, 0x400001, 1, 4, 0, 0, 0, 0, 16};
  store(std::span(b), wire);
  CHECK(parse_snapshots(g, b, 1).error().message().contains("has 4194305 entries, more than"));
}

TEST_CASE("qcow2 refcounts: every width stores every index without touching its neighbours") {
  for (unsigned order = 0; order <= 6; order++) {
    CAPTURE(order);
    bytes block(64);
    const u64 count = 512u >> order;
    const u64 most = order == 6 ? ~u64{0} : (u64{1} << (1u << order)) - 1;
    for (u64 i = 0; i < count; i++)
      store_refcount(block, order, i, i % 3 == 0 ? most : i % 2);
    for (u64 i = 0; i < count; i++)
      CHECK(load_refcount(block, order, i) == (i % 3 == 0 ? most : i % 2));
  }
  // Below a byte, the first entry is in the low bits (spec, "Refcount block entry").
  bytes block(1);
  store_refcount(block, 1, 0, 3);
  CHECK(block[0] == std::byte{0x03});
}

TEST_CASE("qcow2 entries: kinds of standard and extended entries") {
  const entry_rules v3{geometry{}, 3};
  const entry_rules v2{geometry{}, 2};
  const entry_rules extended{geometry{16, 4, true}, 3};
  using enum subcluster_kind;
  struct row {
    entry_rules rules;
    l2_entry entry;
    unsigned index;
    subcluster_kind kind;
  };
  const u64 at = 0x50000;
  const row rows[] = {
      {v3, {0, 0}, 0, unallocated},
      {v3, {1, 0}, 0, zero},
      {v3, {at | 1, 0}, 0, zero_in_cluster},
      {v3, {at | entry_copied, 0}, 0, normal},
      {v3, {entry_copied, 0}, 0, invalid},
      {v3, {0x50200, 0}, 0, invalid},
      {v3, {entry_compressed | 5, 0}, 0, compressed},
      {v2, {1, 0}, 0, invalid},
      {v2, {at, 0}, 0, normal},
      {extended, {0, 0}, 5, unallocated},
      {extended, {0, zero_bits(5, 1)}, 5, zero},
      {extended, {at, zero_bits(5, 1)}, 5, zero_in_cluster},
      {extended, {at, zero_bits(5, 1)}, 6, unallocated_in_cluster},
      {extended, {at, allocated_bits(5, 1)}, 5, normal},
      {extended, {at, allocated_bits(5, 1) | zero_bits(5, 1)}, 5, invalid},
      {extended, {0, allocated_bits(5, 1)}, 5, invalid},
      {extended, {at | 1, 0}, 5, invalid},
      {extended, {entry_compressed | 5, ~u64{0}}, 5, compressed},
  };
  for (const row& r : rows) {
    CAPTURE(r.entry.descriptor);
    CAPTURE(r.entry.bitmap);
    CHECK(to_string(kind_of(r.rules, r.entry, r.index)) == to_string(r.kind));
    if (r.kind == invalid)
      CHECK(!explain_invalid(r.rules, r.entry).empty());
  }
  CHECK(same_kind_count(extended, {at, allocated_bits(4, 8)}, 4) == 8);
  CHECK(same_kind_count(extended, {at, allocated_bits(4, 8)}, 12) == 20);
  CHECK(same_kind_count(v3, {at, 0}, 0) == 1);
}

TEST_CASE("qcow2 entries: a compressed descriptor counts sectors from the one it begins in") {
  const geometry g{16, 4, false};
  // x = 54: 54 bits of offset, 8 bits of sectors.
  CHECK(compressed_range(g, {entry_compressed | 1000, 0}) == byte_range{1000, 24});
  CHECK(compressed_range(g, {entry_compressed | u64{3} << 54 | 1000, 0}) ==
        byte_range{1000, 24 + 3 * 512});
  const geometry large{21, 4, false}; // x = 49
  CHECK(compressed_range(large, {entry_compressed | u64{4} << 49 | 512, 0}) ==
        byte_range{512, 5 * 512});
}

TEST_CASE("qcow2 changes: what zeroing makes of an entry") {
  const u64 at = 0x50000 | entry_copied;
  const clear_rules plain{{geometry{}, 3}};
  clear_rules backed = plain;
  backed.has_backing = true;
  clear_rules unmap = plain;
  unmap.may_unmap = true;
  clear_rules kept = unmap;
  kept.keeps_reference = true;
  clear_rules v2 = unmap;
  v2.entries.version = 2;
  clear_rules extended = backed;
  extended.entries.g.is_extended = true;
  using enum cluster_effect;
  CHECK(zero_cluster(plain, {0, 0}) == entry_change{{0, 0}, none});
  CHECK(zero_cluster(backed, {0, 0}) == entry_change{{1, 0}, none});
  CHECK(zero_cluster(plain, {at, 0}) == entry_change{{at | 1, 0}, none});
  CHECK(zero_cluster(unmap, {at, 0}) == entry_change{{1, 0}, freed});
  CHECK(zero_cluster(kept, {at, 0}) == entry_change{{at | 1, 0}, content_dropped});
  CHECK(zero_cluster(kept, {at | 1, 0}) == entry_change{{at | 1, 0}, none});
  CHECK(zero_cluster(v2, {at, 0}) == entry_change{{0, 0}, freed});
  CHECK(zero_cluster(plain, {entry_compressed | 5, 0}) == entry_change{{1, 0}, freed});
  CHECK(zero_cluster(extended, {at, 0xff}) == entry_change{{at, all_zero}, none});
  CHECK(zero_subclusters(extended, {at, 0xff}, 4, 8) ==
        entry_change{{at, 0x0f | zero_bits(4, 8)}, none});
  clear_rules alone = extended;
  alone.has_backing = false;
  CHECK(zero_subclusters(alone, {at, 0xff}, 4, 8) ==
        entry_change{{at, 0x0f | zero_bits(4, 4)}, none});
  CHECK(!zero_subclusters(extended, {entry_compressed, 0}, 4, 8).has_value());
  CHECK(remove_cluster({at, 0}) == entry_change{{0, 0}, freed});
  CHECK(remove_cluster({1, 0}) == entry_change{{0, 0}, none});
}

TEST_CASE("qcow2 probe: versions 2 and 3, and nothing else") {
  bytes b = valid_bytes();
  CHECK(qcow2_driver_type.probe(b, "x") == 100);
  put32(b, 4, 1);
  CHECK(qcow2_driver_type.probe(b, "x.qcow2") == 0);
  CHECK(qcow2_driver_type.probe({}, "x.qcow2") == 0);
}
