// SPDX-License-Identifier: MIT
// Where compressed clusters go, what shares a place with what, and what cannot be compressed. What
// they read as is held against a byte array in model.cpp, and after crashes in crash.cpp.
#include "drivers/format/qcow2/compress.h"
#include "drivers/format/qcow2/decompress.h"
#include "drivers/format/qcow2/refcount_block.h"
#include "tests/unit/drivers/qcow2/encrypted_image.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 cluster = 4096;

// A cluster that becomes a little longer than `length`.
std::vector<std::byte> cluster_of(u64 length, u64 seed) {
  std::vector<std::byte> bytes(cluster, std::byte{1});
  std::ranges::copy(pattern(length, seed), bytes.begin());
  return bytes;
}

struct packing_bench : qcow2_bench {
  explicit packing_bench(option_list more = {}, u64 length = 64 * cluster) {
    more.emplace_back("cluster_size", "4K");
    disk = &create("d", length, more);
    way = &open("d");
  }
  result<> write(u64 offset, std::span<const std::byte> bytes) {
    return bench.run(way->write(offset, bytes, write_flag::compressed));
  }
  // Where the bytes of a guest cluster lie, once everything is on the disk.
  byte_range place_of(u64 guest) {
    bench.must(way->flush());
    const std::span<const std::byte> bytes = disk->bytes;
    const u64 table = load<be64>(bytes, load<be64>(bytes, 40)) & qcow2::entry_offset_mask;
    const qcow2::l2_entry entry{load<be64>(bytes, table + guest / cluster * 8), 0};
    REQUIRE(entry.is_compressed());
    return qcow2::compressed_range({.cluster_bits = 12}, entry);
  }
  u64 refcount_of(u64 host) {
    const std::span<const std::byte> bytes = disk->bytes;
    const u64 block = load<be64>(bytes, load<be64>(bytes, 48));
    return qcow2::load_refcount(bytes.subspan(block, cluster), load<be32>(bytes, 96),
                                host / cluster);
  }

  memory_disk* disk = nullptr;
  root* way = nullptr;
};

} // namespace

TEST_CASE("qcow2: compressors make what decompressors read, and say when it does not fit") {
  for (const auto type : {qcow2::compression_type::zlib, qcow2::compression_type::zstd}) {
    const auto made = qcow2::compressor::make(type);
    REQUIRE(made != nullptr);
    for (u64 seed = 0; seed < 40; seed++) { // the same one again and again
      const auto plain = cluster_of(seed * 100, seed);
      std::vector<std::byte> stream(cluster - 1);
      const std::size_t length = made->compress(plain, stream);
      REQUIRE(length > 0);
      std::vector<std::byte> back(cluster);
      REQUIRE(qcow2::decompress(type, std::span(stream).first(length), back).has_value());
      CHECK(back == plain);
      CHECK(made->compress(plain, std::span(stream).first(length - 1)) == 0);
    }
    std::vector<std::byte> stream(cluster - 1);
    CHECK(made->compress(pattern(cluster, 1), stream) == 0);
  }
}

TEST_CASE(
    "qcow2: the descriptor of a compressed cluster says where it is, for every cluster size") {
  for (unsigned bits = 9; bits <= 21; bits++) {
    const qcow2::geometry g{.cluster_bits = bits};
    const u64 end = qcow2::compressed_end_max(g);
    for (const byte_range r : {byte_range{g.cluster(), 1}, byte_range{g.cluster() + 511, 2},
                               byte_range{3 * g.cluster() - 1, g.cluster() - 1},
                               byte_range{end - g.cluster() + 1, g.cluster() - 1}}) {
      CAPTURE(bits);
      const qcow2::l2_entry entry = qcow2::compressed_entry(g, r);
      CHECK(entry.is_compressed());
      CHECK(!entry.is_copied());
      const byte_range found = qcow2::compressed_range(g, entry);
      CHECK(found.offset == r.offset);
      CHECK(found.end() == align_up(r.end(), 512));
    }
  }
}

TEST_CASE(
    "qcow2: compressed clusters are packed byte behind byte, also across a cluster boundary") {
  packing_bench b;
  b.bench.must(b.way->write(0, pattern(100, 1))); // now there is an L2 table
  for (u64 i = 1; i <= 3; i++)
    REQUIRE(b.write(i * cluster, cluster_of(1500, i)).has_value());
  const byte_range first = b.place_of(cluster);
  const byte_range second = b.place_of(2 * cluster);
  const byte_range third = b.place_of(3 * cluster);
  CHECK(first.offset % cluster == 0);
  CHECK(second.offset > first.offset + 1500);
  CHECK(second.offset < first.offset + 1600); // not at the next sector
  CHECK(third.offset / cluster == first.offset / cluster);
  CHECK((third.end() - 1) / cluster == first.offset / cluster + 1);
  CHECK(b.refcount_of(first.offset) == 3);
  CHECK(b.refcount_of(first.offset + cluster) == 1);
  b.close();
  require_sound(*b.disk);
  CHECK(b.disk->bytes.size() % 512 == 0); // though the last of them ends anywhere
}

TEST_CASE("qcow2: compressed clusters do not share a host cluster that cannot be counted again") {
  packing_bench b({{"refcount_bits", "1"}});
  for (u64 i = 0; i < 3; i++)
    REQUIRE(b.write(i * cluster, cluster_of(100, i)).has_value());
  for (u64 i = 0; i < 3; i++) {
    CHECK(b.place_of(i * cluster).offset % cluster == 0);
    CHECK(b.refcount_of(b.place_of(i * cluster).offset) == 1);
  }
  b.close();
  require_sound(*b.disk);
}

TEST_CASE("qcow2: a host cluster of which all compressed clusters are gone is started anew") {
  packing_bench b;
  REQUIRE(b.write(0, cluster_of(100, 1)).has_value());
  const u64 host = b.place_of(0).offset;
  b.bench.must(b.way->discard({0, cluster}));
  b.bench.must(b.way->flush());
  CHECK(b.refcount_of(host) == 0);
  // The next one must not be put behind bytes that are nobody's: another may get the cluster.
  b.bench.must(b.way->write(cluster, pattern(cluster, 2)));
  REQUIRE(b.write(2 * cluster, cluster_of(100, 3)).has_value());
  CHECK(b.place_of(2 * cluster).offset % cluster == 0);
  CHECK(b.place_of(2 * cluster).offset / cluster != host / cluster);
  CHECK(read_all(b.bench, *b.way)[cluster] == pattern(cluster, 2)[0]);
  b.close();
  require_sound(*b.disk);
}

TEST_CASE("qcow2: what does not become smaller is written as it is, in place where it may be") {
  packing_bench b;
  const auto noise = pattern(2 * cluster, 1);
  REQUIRE(b.write(0, noise).has_value());
  const block_status s = b.bench.must(b.way->top().status({0, 2 * cluster}));
  CHECK(!s.is_compressed);
  CHECK(s.length == 2 * cluster);
  const u64 grown = b.disk->bytes.size();
  REQUIRE(b.write(0, pattern(2 * cluster, 2)).has_value());
  b.bench.must(b.way->flush());
  CHECK(b.disk->bytes.size() == grown);
  const auto all = read_all(b.bench, *b.way);
  CHECK(is_same(std::span(all).first(2 * cluster), pattern(2 * cluster, 2)));
}

TEST_CASE("qcow2: the last cluster of a disk is compressed though the disk cuts it short") {
  packing_bench b({}, 4 * cluster + 512);
  std::vector<std::byte> bytes(cluster + 512, std::byte{9});
  REQUIRE(b.write(3 * cluster, bytes).has_value());
  CHECK(b.place_of(4 * cluster).length <= 1024);
  b.bench.must(b.way->truncate(5 * cluster)); // what was cut off is zeroes
  const auto all = read_all(b.bench, *b.way);
  CHECK(all[4 * cluster + 511] == std::byte{9});
  CHECK(all[4 * cluster + 512] == std::byte{0});
  b.close();
  require_sound(*b.disk);
}

TEST_CASE("qcow2: what cannot be compressed is refused, with the reason, and nothing is written") {
  struct refusal {
    option_list create;
    byte_range range;
    const char* words;
  };
  const refusal cases[] = {
      {{},
       {0, 100},
       "0x64 bytes at 0x0 cannot be compressed: they are not whole clusters of 0x1000"},
      {{}, {512, cluster}, "they are not whole clusters of 0x1000 bytes"},
      {{}, {0, cluster + 512}, "they are not whole clusters"},
      {{{"data_file", "data"}}, {0, cluster}, "an image with an external data file cannot have"},
      {create_options("luks", small_luks({})),
       {0, cluster},
       "an encrypted image cannot have compressed clusters"},
  };
  for (const refusal& c : cases) {
    CAPTURE(c.words);
    qcow2_bench b;
    b.add_secret("sec0", test_passphrase);
    option_list create = c.create;
    create.emplace_back("cluster_size", "4K");
    memory_disk& disk = b.create("d", 64 * cluster, create);
    option_list open;
    if (!c.create.empty() && c.create.front().first == "data_file")
      open = {{"data-file", "data"}};
    if (c.words == std::string_view(cases[4].words))
      open = open_options("luks", {});
    const auto before = disk.bytes;
    root& way = b.open("d", open);
    const result<> r = b.bench.run(
        way.write(c.range.offset, std::vector<std::byte>(c.range.length), write_flag::compressed));
    REQUIRE(!r.has_value());
    CHECK_MESSAGE(r.error().message().contains(c.words), r.error().message());
    b.close();
    CHECK(is_same(disk.bytes, before));
  }
}

TEST_CASE("a node whose driver has no compressed clusters refuses to write them") {
  graph_bench b({});
  b.disk("d").bytes.resize(64 * KiB);
  root& way = b.attach(b.open(disk_spec("d")), may_write);
  const result<> r = b.run(way.write(0, std::vector<std::byte>(4096), write_flag::compressed));
  REQUIRE(!r.has_value());
  CHECK(r.error().message().contains("cannot write compressed clusters"));
}

TEST_CASE("qcow2: an entry that cannot be is found before it is replaced") {
  packing_bench b;
  b.bench.must(b.way->write(0, pattern(cluster, 1)));
  b.close();
  image_editor e(b.disk->bytes);
  e.put(e.entry_at(0), e.number(e.entry_at(0)) | 0x200);
  b.way = &b.open("d");
  const result<> r = b.write(0, cluster_of(100, 1));
  REQUIRE(!r.has_value());
  CHECK(r.error().message().contains("is not aligned to the cluster size"));
}
