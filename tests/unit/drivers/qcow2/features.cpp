// SPDX-License-Identifier: MIT
// Snapshots, bitmaps, compressed clusters, feature bits: what is kept, refused, cleared or marked.
#include "drivers/format/qcow2/bitmap_table.h"
#include "tests/unit/drivers/qcow2/deflate.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"

#include <libdeflate.h>
#include <random>
#include <zstd.h>

using namespace bgfs;
using namespace bgfs::qcow2;
using namespace bgfs::test;

namespace {

std::vector<std::byte> text(std::size_t length, char seed) {
  std::vector<std::byte> bytes(length);
  for (std::size_t i = 0; i < length; i++)
    bytes[i] = static_cast<std::byte>(seed + static_cast<char>(i / 7 % 13));
  return bytes;
}

// Raw deflate in a window of 4 KiB, as qcow2 writers use.
std::vector<std::byte> compress_zstd(std::span<const std::byte> in) {
  std::vector<std::byte> out(ZSTD_compressBound(in.size()));
  out.resize(ZSTD_compress(out.data(), out.size(), in.data(), in.size(), 3));
  return out;
}

// An image with one data cluster at 0, closed.
memory_disk& small_image(qcow2_bench& b, const option_list& list, u64 length = 256 << 10) {
  memory_disk& disk = b.create("d", length, list);
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(4096, 1)));
  b.close();
  return disk;
}

} // namespace

TEST_CASE("qcow2: a snapshot keeps its content through writes, zeroes, discards and growth") {
  for (const option_list& list : {option_list{{"cluster_size", "4K"}},
                                  option_list{{"cluster_size", "4K"}, {"compat", "0.10"}},
                                  option_list{{"cluster_size", "16K"}, {"extended_l2", "on"}}}) {
    qcow2_bench b;
    memory_disk& disk = b.create("d", 256 << 10, list);
    root& first = b.open("d");
    std::vector<std::byte> model(256 << 10);
    for (u64 at = 0; at < model.size(); at += 20000) {
      const auto bytes = pattern(9000, at);
      const u64 length = std::min<u64>(bytes.size(), model.size() - at);
      b.bench.must(first.write(at, std::span(bytes).first(length)));
      std::copy_n(bytes.begin(), length, model.begin() + static_cast<i64>(at));
    }
    b.close();
    image_editor(disk.bytes).add_snapshot("before");
    require_sound(disk);
    const auto snapshot = model;

    root& way = b.open("d");
    std::mt19937_64 random(5);
    for (int i = 0; i < 80; i++) {
      const u64 at = random() % (model.size() - 5000);
      if (i % 4 == 0) {
        const byte_range r{align_down(at, 16384), 16384};
        if (i % 8 == 0) {
          b.bench.must(way.discard(r));
        } else {
          b.bench.must(way.write_zeroes(r, write_flag::may_unmap));
        }
        std::fill_n(model.begin() + static_cast<i64>(r.offset), r.length, std::byte{0});
      } else {
        const auto bytes = pattern(1 + random() % 5000, random());
        b.bench.must(way.write(at, bytes));
        std::ranges::copy(bytes, model.begin() + static_cast<i64>(at));
      }
    }
    if (list.size() == 1)
      b.bench.must(way.truncate(1 << 20));
    model.resize(way.length());
    CHECK(read_all(b.bench, way) == model);
    b.close();
    require_sound(disk);
    CHECK(read_disk(disk.bytes) == model);
    CHECK(read_disk(image_editor(disk.bytes).as_snapshot()) == snapshot);
  }
}

TEST_CASE("qcow2: a version 2 image with snapshots does not change its length") {
  qcow2_bench b;
  memory_disk& disk = small_image(b, {{"compat", "0.10"}, {"cluster_size", "4K"}});
  image_editor(disk.bytes).add_snapshot("s");
  root& way = b.open("d");
  const result<> r = b.bench.run(way.truncate(1 << 20));
  REQUIRE(!r);
  CHECK(r.error().message().contains(
      "a version 2 image with snapshots cannot change its length; delete its 1 snapshots"));
}

TEST_CASE("qcow2: bitmaps are marked IN_USE by the first write, and not by opening, until close") {
  qcow2_bench b;
  memory_disk& disk = small_image(b, {{"cluster_size", "4K"}});
  image_editor(disk.bytes).add_bitmap("nightly");
  const auto before = disk.bytes;
  b.open("d");
  b.close();
  CHECK(disk.bytes == before);
  const auto flags = [&] {
    image_editor e(disk.bytes);
    const auto known = *e.header().bitmaps();
    const auto directory = std::span(disk.bytes).subspan(known->range.offset, known->range.length);
    return (*parse_bitmap_directory(e.header().g, directory, 1, e.header().disk_length))[0].flags;
  };
  CHECK(flags() == 0);
  root& way = b.open("d");
  bool was_marked = false;
  disk.fault = [&](std::string_view what, byte_range r) -> std::optional<error> {
    if (what == "write" && r.length == 512)
      was_marked = flags() == 1; // before the data
    return std::nullopt;
  };
  b.bench.must(way.write(0, pattern(512, 9)));
  disk.fault = nullptr;
  CHECK(was_marked);
  CHECK(flags() == 1);
  b.close();
  CHECK(flags() == 0);
}

TEST_CASE("qcow2: unknown autoclear bits are cleared when the image is opened for writing only") {
  qcow2_bench b;
  memory_disk& disk = small_image(b, {{"cluster_size", "4K"}});
  image_editor(disk.bytes).put(88, 0xf0);
  b.open("d", {{"read-only", "on"}}, "", may_read);
  b.close();
  CHECK(image_editor(disk.bytes).header().autoclear == 0xf0);
  b.open("d");
  b.close();
  CHECK(image_editor(disk.bytes).header().autoclear == 0);
}

TEST_CASE("qcow2: extensions and unknown header fields survive writing, growing and closing") {
  qcow2_bench b;
  memory_disk& disk = small_image(b, {{"cluster_size", "4K"}});
  image_editor e(disk.bytes);
  header h = e.header();
  h.extensions.push_back({0xabcdef01, {std::byte{1}, std::byte{2}, std::byte{3}}});
  h.unknown_fields.assign(15, std::byte{0x5a});
  e.write_header(h);
  root& way = b.open("d");
  b.bench.must(way.write(50000, pattern(9000, 2)));
  b.bench.must(way.truncate(64 << 20));
  b.close();
  const header after = image_editor(disk.bytes).header();
  CHECK(after.unknown_fields == h.unknown_fields);
  REQUIRE(after.extensions.size() == h.extensions.size());
  for (std::size_t i = 0; i < after.extensions.size(); i++)
    CHECK(after.extensions[i].bytes == h.extensions[i].bytes);
  require_sound(disk);
}

TEST_CASE("qcow2: compressed clusters of both kinds read, at any alignment and cut by the end") {
  for (const char* type : {"zlib", "zstd"}) {
    CAPTURE(type);
    qcow2_bench b;
    memory_disk& disk =
        small_image(b, {{"cluster_size", "4K"}, {"compression_type", type}}, 64 << 10);
    std::vector<std::byte> model = pattern(4096, 1);
    model.resize(64 << 10);
    {
      image_editor e(disk.bytes);
      const std::vector<std::byte> random = pattern(4096, 77);
      for (u64 i = 1; i < 12; i++) {
        auto plain = text(4096, static_cast<char>('a' + i));
        std::copy_n(random.begin(), i * 200, plain.begin());
        std::ranges::copy(plain, model.begin() + static_cast<i64>(i * 4096));
        const auto packed = type == std::string("zlib") ? deflate_raw(plain) : compress_zstd(plain);
        e.add_compressed(i * 4096, packed, i * 301);
      }
      // The file may end inside the last sector.
      auto& bytes = disk.bytes;
      while (bytes.back() == std::byte{0})
        bytes.pop_back();
    }
    root& way = b.open("d");
    CHECK(read_all(b.bench, way) == model);
    std::vector<std::byte> part(5000);
    b.bench.must(way.read(6000, part));
    CHECK(std::ranges::equal(part, std::span(model).subspan(6000, 5000)));
    const block_status s = b.bench.must(b.top().status({4096, 4096}));
    CHECK(s.is_data);
    CHECK(s.is_compressed);
    // A write into one moves its content; the others stay.
    b.bench.must(way.write(4096 * 3 + 1000, pattern(500, 4)));
    std::ranges::copy(pattern(500, 4), model.begin() + 4096 * 3 + 1000);
    b.bench.must(way.discard({4096 * 5, 4096}));
    std::fill_n(model.begin() + 4096 * 5, 4096, std::byte{0});
    b.bench.must(way.write_zeroes({4096 * 6, 4096}));
    std::fill_n(model.begin() + 4096 * 6, 4096, std::byte{0});
    CHECK(read_all(b.bench, way) == model);
    b.close();
    require_sound(disk);
  }
}

TEST_CASE("qcow2: damaged compressed data is an error, with the place") {
  struct bad {
    const char* type;
    std::vector<std::byte> stream;
    const char* message;
  };
  const bad table[] = {
      {"zlib", pattern(100, 3), "the zlib stream is damaged"},
      {"zlib", deflate_raw(text(4000, 'a')), "it makes 4000 of 4096 bytes"},
      {"zstd", pattern(100, 3), "the zstd stream is damaged"},
      {"zstd", compress_zstd(text(4000, 'a')), "it makes 4000 of 4096 bytes"},
  };
  for (const bad& c : table) {
    qcow2_bench b;
    memory_disk& disk =
        small_image(b, {{"cluster_size", "4K"}, {"compression_type", c.type}}, 64 << 10);
    image_editor(disk.bytes).add_compressed(8192, c.stream);
    root& way = b.open("d");
    std::vector<std::byte> bytes(100);
    const result<> r = b.bench.run(way.read(8200, bytes));
    REQUIRE(!r);
    CHECK_MESSAGE(r.error().message().contains(c.message), r.error().message());
    CHECK(r.error().message().contains("reading the compressed cluster at guest offset 0x2000"));
    b.bench.must(way.read(0, bytes)); // the rest still reads
  }
  qcow2_bench b;
  memory_disk& disk = small_image(b, {{"cluster_size", "4K"}}, 64 << 10);
  image_editor e(disk.bytes);
  e.put(e.entry_at(8192), entry_compressed | 0x1000000);
  root& way = b.open("d");
  std::vector<std::byte> bytes(100);
  const result<> r = b.bench.run(way.read(8200, bytes));
  REQUIRE(!r);
  CHECK(r.error().message().contains("its data at 0x1000000 lies beyond the end of the file"));
}

TEST_CASE("qcow2: a stream that does not end with its cluster is taken up to there") {
  // A deflate stream of two clusters: the first one is what the cluster holds.
  qcow2_bench b;
  memory_disk& disk = small_image(b, {{"cluster_size", "4K"}}, 64 << 10);
  const auto twice = text(8192, 'q');
  image_editor(disk.bytes).add_compressed(4096, deflate_raw(twice));
  root& way = b.open("d");
  std::vector<std::byte> bytes(4096);
  b.bench.must(way.read(4096, bytes));
  CHECK(std::ranges::equal(bytes, std::span(twice).first(4096)));
}

TEST_CASE("qcow2: lazy refcounts mark the image dirty until it is closed") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}, {"lazy_refcounts", "on"}});
  root& way = b.open("d");
  CHECK(!image_editor(disk.bytes).header().is_dirty());
  b.bench.must(way.write(0, pattern(4096, 1)));
  CHECK(image_editor(disk.bytes).header().is_dirty());
  CHECK(b.top().instance().info().is_dirty);
  b.bench.must(way.flush());
  const auto cut = disk.bytes; // as a kill would leave it
  b.close();
  CHECK(!image_editor(disk.bytes).header().is_dirty());
  require_sound(disk);

  b.place("killed", cut);
  const memory_disk& killed = *memory_disks()["killed"];
  root& again = b.open("killed", {{"read-only", "on"}}, "", may_read);
  std::vector<std::byte> bytes(4096);
  b.bench.must(again.read(0, bytes));
  CHECK(bytes == pattern(4096, 1));
  CHECK(killed.bytes == cut);
  b.close();
  // For writing it is repaired first.
  root& writer = b.open("killed");
  CHECK(!image_editor(memory_disks()["killed"]->bytes).header().is_dirty());
  require_sound(killed);
  b.bench.must(writer.read(0, bytes));
  CHECK(bytes == pattern(4096, 1));
}

TEST_CASE("qcow2: a dirty image that cannot be repaired does not open for writing") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}});
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(8192, 1)));
  b.close();
  image_editor e(disk.bytes);
  header h = e.header();
  h.incompatible |= incompatible_bit::dirty;
  e.write_header(h);
  e.put(e.entry_at(0), e.number(e.entry_at(0)) | 4);
  const std::string refusal = b.open_error("d");
  CHECK_MESSAGE(
      refusal.contains("was not closed properly, and its refcounts could not be repaired: "
                       "1 errors are left, the first of them: ERROR found l2 entry with "
                       "reserved bits set: "),
      refusal);
  CHECK(refusal.contains("'bgfs convert'"));
  CHECK(image_editor(disk.bytes).header().is_dirty());
  CHECK(b.open_error("d", {{"read-only", "on"}}).empty());
}

TEST_CASE("qcow2: the option lazy-refcounts counts more than the header") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}, {"lazy_refcounts", "on"}});
  root& way = b.open("d", {{"lazy-refcounts", "off"}});
  b.bench.must(way.write(0, pattern(4096, 1)));
  CHECK(!image_editor(disk.bytes).header().is_dirty());
}

TEST_CASE("qcow2: a corrupt image opens for reading only") {
  qcow2_bench b;
  memory_disk& disk = small_image(b, {{"cluster_size", "4K"}});
  image_editor(disk.bytes).put(72, incompatible_bit::corrupt);
  CHECK(b.open_error("d").contains("is marked corrupt and must not be written to"));
  CHECK(b.open_error("d", {{"read-only", "on"}}).empty());
}

TEST_CASE("qcow2: new clusters that hold metadata stop the image and set the corrupt bit") {
  struct bad {
    const char* what;
    void (*spoil)(image_editor&);
    const char* message;
  };
  const bad table[] = {
      {"refcount of the header 0", [](image_editor& e) { e.add_refcount(0, -1); },
       "the refcount of cluster 0, which holds the header, is 0"},
      {"refcount of the L1 table 0",
       [](image_editor& e) { e.add_refcount(e.header().l1.value, -1); },
       "which holds the active L1 table, is 0"},
      {"L2 entry unaligned",
       [](image_editor& e) { e.put(e.entry_at(0x8000), 0x10200 | entry_copied); },
       "its cluster offset 0x10200 is not aligned to the cluster size 0x1000"},
      {"data over the refcount table",
       [](image_editor& e) { e.put(e.entry_at(0x8000), 0x1000 | entry_copied); },
       "would go over the refcount table at 0x1000"},
      {"L2 table unaligned",
       [](image_editor& e) { e.put(e.header().l1.value, 0x10200 | entry_copied); },
       "L2 table 0 at 0x10200 is not aligned"},
      {"L2 table beyond the end",
       [](image_editor& e) { e.put(e.header().l1.value, 0x10000000 | entry_copied); },
       "reaches beyond the end of the file"},
  };
  for (const bad& c : table) {
    CAPTURE(c.what);
    qcow2_bench b;
    memory_disk& disk = small_image(b, {{"cluster_size", "4K"}});
    {
      image_editor e(disk.bytes);
      c.spoil(e);
    }
    root& way = b.open("d");
    const result<> r = b.bench.run(way.write(0x8000, pattern(4096, 1)));
    REQUIRE(!r);
    CHECK(r.error().kind() == error_kind::corrupt_image);
    CHECK_MESSAGE(r.error().message().contains(c.message), r.error().message());
    CHECK((load<be64>(disk.bytes, 72) & incompatible_bit::corrupt) != 0);
    const auto after = disk.bytes;
    CHECK(!b.bench.run(way.write(0x9000, pattern(4096, 1))));
    CHECK(!b.bench.run(way.write(0, pattern(4096, 1))));
    (void)b.try_close();
    CHECK(disk.bytes == after);
  }
}

TEST_CASE("qcow2: a reader reports corruption and writes nothing") {
  qcow2_bench b;
  memory_disk& disk = small_image(b, {{"cluster_size", "4K"}});
  {
    image_editor e(disk.bytes);
    e.put(e.entry_at(0), 0x10200);
  }
  const auto before = disk.bytes;
  root& way = b.open("d", {{"read-only", "on"}}, "", may_read);
  std::vector<std::byte> bytes(100);
  const result<> r = b.bench.run(way.read(0, bytes));
  REQUIRE(!r);
  CHECK(r.error().message().contains("the L2 entry of guest offset 0x0"));
  b.bench.must(way.read(8192, bytes));
  b.close();
  CHECK(disk.bytes == before);
}

TEST_CASE("qcow2: overlap checks cover what the option says") {
  // A data cluster over a snapshot's L2 table: only `all` knows about those.
  for (const char* mode : {"none", "constant", "cached", "all"}) {
    CAPTURE(mode);
    qcow2_bench b;
    memory_disk& disk = small_image(b, {{"cluster_size", "4K"}});
    {
      image_editor e(disk.bytes);
      const u64 table = e.number(e.header().l1.value) & entry_offset_mask;
      e.add_snapshot("s");
      const u64 copy = e.append(1); // an active table of our own, so that ours may be written
      for (u64 i = 0; i < 4096; i += 8)
        e.put(copy + i, e.number(table + i));
      e.put(e.header().l1.value, copy | entry_copied);
      e.put(copy + 8, table | entry_copied); // guest 0x1000 goes over the snapshot's table
    }
    root& way = b.open("d", {{"overlap-check", mode}});
    const result<> r = b.bench.run(way.write(0x1000, pattern(4096, 1)));
    CHECK(r.has_value() == (mode != std::string("all")));
    if (!r)
      CHECK(r.error().message().contains("would go over an L2 table of a snapshot"));
    (void)b.try_close();
  }
}
