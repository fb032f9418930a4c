// SPDX-License-Identifier: MIT
// What creating and opening accept and refuse, and what an image says about itself.
#include "drivers/format/qcow2/header.h"
#include "drivers/format/qcow2/image.h"
#include "graph/base/is_zero.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"

using namespace bgfs;
using namespace bgfs::test;

TEST_CASE("qcow2 create: what cannot be is refused with what can") {
  struct bad {
    option_list list;
    u64 length;
    const char* message;
  };
  const bad table[] = {
      {{{"cluster_size", "3000"}}, 1 << 20, "'cluster_size' is 3000; it must be a power of two"},
      {{{"cluster_size", "256"}}, 1 << 20, "'cluster_size' is 256; it must be"},
      {{{"cluster_size", "4M"}}, 1 << 20, "'cluster_size' is 4194304; it must be"},
      {{{"refcount_bits", "3"}}, 1 << 20, "'refcount_bits' is 3; it must be 1, 2, 4, 8, 16, 32"},
      {{{"refcount_bits", "128"}}, 1 << 20, "'refcount_bits' is 128"},
      {{{"compat", "0.10"}, {"refcount_bits", "8"}},
       1 << 20,
       "'refcount_bits' other than 16 needs"},
      {{{"compat", "v2"}, {"lazy_refcounts", "on"}}, 1 << 20, "'lazy_refcounts' needs version 3"},
      {{{"compat", "v2"}, {"compression_type", "zstd"}},
       1 << 20,
       "'compression_type' other than zlib needs version 3"},
      {{{"compat", "v2"}, {"extended_l2", "on"}}, 1 << 20, "'extended_l2' needs version 3"},
      {{{"cluster_size", "8K"}, {"extended_l2", "on"}},
       1 << 20,
       "'extended_l2' needs clusters of at least 16K; 'cluster_size' is 8192"},
      {{{"backing_fmt", "raw"}}, 1 << 20, "'backing_fmt' is given without 'backing_file'"},
      {{{"backing_file", "b"}}, 1 << 20, "'backing_file' is given without 'backing_fmt'"},
      {{{"backing_file", "b"}, {"backing_fmt", "raw"}, {"preallocation", "full"}},
       1 << 20,
       "'preallocation' would hide the backing file"},
      {{{"backing_file", std::string(1024, 'b')}, {"backing_fmt", "raw"}},
       1 << 20,
       "its backing file name of 1024 bytes does not fit"},
      {{{"cluster_size", "512"}}, u64{256} << 30, "is too long for clusters of 512 bytes"},
      {{}, ~u64{0}, "is too long for clusters of 65536 bytes"},
  };
  int number = 0;
  for (const bad& c : table) {
    qcow2_bench b;
    const std::string name = fmt::format("d{}", number++);
    const result<> made = b.try_create(name, c.length, c.list);
    REQUIRE(!made);
    CHECK_MESSAGE(made.error().message().contains(c.message), made.error().message());
    CHECK(memory_disks()[name]->bytes.empty()); // refused before anything was written
  }
}

TEST_CASE("qcow2 create: every combination of shapes is an image without leaks") {
  for (const char* cluster : {"512", "4K", "16K", "64K", "2M"})
    for (const char* bits : {"1", "2", "4", "8", "16", "32", "64"})
      for (const char* prealloc : {"off", "metadata"}) {
        CAPTURE(cluster);
        CAPTURE(bits);
        CAPTURE(prealloc);
        qcow2_bench b;
        memory_disk& disk = b.create(
            "d", (300 << 10) + 512,
            {{"cluster_size", cluster}, {"refcount_bits", bits}, {"preallocation", prealloc}});
        require_sound(disk);
        root& way = b.open("d");
        CHECK(way.length() == (300 << 10) + 512);
        CHECK(is_zero(read_all(b.bench, way)));
        const block_status s = b.bench.must(b.top().status({0, way.length()}));
        CHECK(s.is_data == (prealloc == std::string("metadata")));
        b.close();
      }
}

TEST_CASE("qcow2 create: preallocation reaches into the file") {
  for (const char* mode : {"metadata", "falloc", "full"}) {
    for (const char* extended : {"off", "on"}) {
      qcow2_bench b;
      memory_disk& disk =
          b.create("d", 1 << 20, {{"preallocation", mode}, {"extended_l2", extended}});
      require_sound(disk);
      CHECK(disk.bytes.size() > 1 << 20);
      root& way = b.open("d");
      b.bench.must(way.write(70000, pattern(1000, 1)));
      b.bench.must(way.flush());
      const u64 length = disk.bytes.size();
      b.close();
      CHECK(disk.bytes.size() == length); // the cluster was there already
      require_sound(disk);
    }
  }
}

TEST_CASE("qcow2 create: the backing file is stored as given, with its format") {
  qcow2_bench b;
  b.create("d", 1 << 20,
           {{"backing_file", "../base.img"}, {"backing_fmt", "raw"}, {"cluster_size", "512"}});
  node& top = b.bench.open(qcow2_bench::image_spec("d"));
  const auto reference = top.instance().backing_reference();
  REQUIRE(reference.has_value());
  CHECK(reference->filename == "../base.img");
  CHECK(reference->format == "raw");
  b.bench.must(b.bench.graph().close(top));
}

TEST_CASE("qcow2 open: options that contradict each other or the image are refused") {
  qcow2_bench b;
  b.create("v2", 1 << 20, {{"compat", "0.10"}});
  struct bad {
    option_list list;
    const char* message;
  };
  const bad table[] = {
      {{{"lazy-refcounts", "on"}}, "'lazy-refcounts' needs an image of version 3"},
      {{{"discard-no-unref", "on"}}, "'discard-no-unref' needs an image of version 3"},
      {{{"cache-size", "1M"}, {"l2-cache-size", "64K"}, {"refcount-cache-size", "64K"}},
       "'cache-size', 'l2-cache-size' and 'refcount-cache-size' are given"},
      {{{"cache-size", "1M"}, {"l2-cache-size", "2M"}},
       "'l2-cache-size' 2097152 is larger than 'cache-size' 1048576"},
      {{{"cache-size", "1M"}, {"refcount-cache-size", "2M"}},
       "'refcount-cache-size' 2097152 is larger than 'cache-size' 1048576"},
      {{{"l2-cache-entry-size", "3000"}}, "'l2-cache-entry-size' is 3000; it must be"},
      {{{"l2-cache-entry-size", "128K"}}, "'l2-cache-entry-size' is 131072; it must be"},
  };
  for (const bad& c : table) {
    const std::string message = b.open_error("v2", c.list);
    CHECK_MESSAGE(message.contains(c.message), message);
  }
  CHECK(b.open_error("v2", {{"cache-size", "1M"}, {"l2-cache-size", "64K"}}).empty());
  CHECK(b.open_error("v2", {{"cache-size", "1M"}, {"refcount-cache-size", "64K"}}).empty());
  CHECK(b.open_error("v2", {{"cache-size", "1M"}, {"l2-cache-entry-size", "4K"}}).empty());
  CHECK(b.open_error("v2", {{"cache-size", "1"}}).empty());
  CHECK(b.open_error("v2", {{"overlap-check.template", "all"}, {"overlap-check.active-l2", "off"}})
            .empty());
}

TEST_CASE("qcow2 open: tables that reach beyond the file, and files that are no image") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}});
  const auto good = disk.bytes;
  disk.bytes.resize(3 * 4096); // the L1 table was behind
  CHECK(b.open_error("d").contains("the L1 table at 0x3000 of 0x8 bytes reaches beyond the end"));
  const auto before = disk.bytes;
  CHECK(!b.open_error("d").empty());
  CHECK(disk.bytes == before); // not even the corrupt bit
  disk.bytes.resize(50);
  CHECK(b.open_error("d").contains("the file is 50 bytes long"));
  disk.bytes.assign(4096, std::byte{'x'});
  CHECK(b.open_error("d").contains("not a qcow2 image"));
  disk.bytes = good;
  store(std::span(disk.bytes), be64(0x1200), 0x1000); // the first refcount block
  CHECK(b.open_error("d").contains("refcount block 0 at 0x1200 is not aligned"));
}

TEST_CASE("qcow2 open: a snapshot table without an end is refused") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}});
  image_editor e(disk.bytes);
  e.add_snapshot("s");
  store(std::span(disk.bytes), be32(5), 60);
  disk.bytes.resize(e.header().snapshots.value + 100);
  CHECK(b.open_error("d").contains("the table of 5 snapshots at"));
}

TEST_CASE("qcow2 info: the keys of qemu-img info") {
  qcow2_bench b;
  b.create("d", 1 << 20, {{"compression_type", "zstd"}, {"extended_l2", "on"}});
  b.open("d");
  const driver_info i = b.top().instance().info();
  CHECK(i.cluster_size == 65536);
  CHECK(i.subcluster_size == 2048);
  CHECK(to_json(i.format_specific) ==
        R"({"type": "qcow2", "data": {"compat": "1.1", "compression-type": "zstd", )"
        R"("lazy-refcounts": false, "refcount-bits": 16, "corrupt": false, "extended-l2": true}})");
  b.close();
  b.create("old", 1 << 20, {{"compat", "0.10"}});
  b.open("old");
  CHECK(to_json(b.top().instance().info().format_specific) ==
        R"({"type": "qcow2", "data": {"compat": "0.10", "compression-type": "zlib", )"
        R"("refcount-bits": 16}})");
}

TEST_CASE("qcow2 resize: what cannot be is refused") {
  qcow2_bench b;
  b.create("d", 1 << 20, {{"cluster_size", "512"}});
  root& way = b.open("d");
  const result<> odd = b.bench.run(way.truncate(1000));
  REQUIRE(!odd);
  CHECK(odd.error().message().contains("must be a multiple of 512, not 1000"));
  const result<> huge = b.bench.run(way.truncate(u64{256} << 30));
  REQUIRE(!huge);
  CHECK(huge.error().message().contains("needs an L1 table of 8388608 entries, more than 4194304"));
  CHECK(way.length() == 1 << 20);
}

TEST_CASE("qcow2 resize: a preallocated new part hides a longer backing file") {
  for (const preallocation mode : {preallocation::metadata, preallocation::falloc}) {
    for (const char* compat : {"0.10", "1.1"}) {
      for (const u64 before : {u64{1 << 20}, u64{(1 << 20) + 1536}}) {
        CAPTURE(compat);
        CAPTURE(before);
        qcow2_bench b;
        memory_disk& disk = b.create("d", before, {{"cluster_size", "4K"}, {"compat", compat}});
        b.place("base", pattern(3 << 20, 1));
        root& over = b.open("d", {}, "base");
        b.bench.must(over.truncate(2 << 20, {.prealloc = mode}));
        auto model = pattern(3 << 20, 1);
        model.resize(before);
        model.resize(2 << 20);
        CHECK(is_same(read_all(b.bench, over), model));
        // All of it has its place, also in the cluster that the old end cuts through.
        const u64 first = align_down(before, 4096);
        const block_status s = b.bench.must(b.top().status({first, (2 << 20) - first}, false));
        CHECK(s.is_allocated);
        CHECK(s.file != nullptr);
        b.close();
        CHECK(is_same(read_all(b.bench, b.open("d", {}, "base")), model));
        b.close();
        require_sound(disk);
      }
    }
  }
}

TEST_CASE("qcow2 resize: growth with preallocation reads as zeroes over old data") {
  for (const preallocation mode : {preallocation::metadata, preallocation::full}) {
    qcow2_bench b;
    memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}});
    root& way = b.open("d");
    b.bench.must(way.write(0, pattern(1 << 20, 1)));
    b.bench.must(way.discard({0, 512 << 10})); // leaves old bytes behind in free clusters
    b.bench.must(way.flush());
    b.bench.must(way.truncate((1 << 20) + 1536));
    b.bench.must(way.truncate(2 << 20, {.prealloc = mode}));
    auto model = pattern(1 << 20, 1);
    std::fill_n(model.begin(), 512 << 10, std::byte{0});
    model.resize(2 << 20);
    CHECK(read_all(b.bench, way) == model);
    b.close();
    require_sound(disk);
  }
}
