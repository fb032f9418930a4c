// SPDX-License-Identifier: MIT
// Version, refcount width, lazy refcounts, length and data file name change in place: what the
// image holds stays, whatever fails or stops half-way.
#include "tests/unit/drivers/qcow2/amend_bench.h"
#include "tests/unit/drivers/qcow2/crash_replay.h"
#include "tests/unit/drivers/qcow2/image_editor.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct row {
  const char* name;
  option_list create;
  option_list change;
  unsigned version;
  u64 refcount_bits;
  bool has_backing = false;
};

const row rows[] = {
    {"upgrade", {{"cluster_size", "1K"}, {"compat", "0.10"}}, {{"compat", "1.1"}}, 3, 16},
    {"upgrade of an overlay",
     {{"cluster_size", "64K"}, {"compat", "0.10"}},
     {{"compat", "v3"}, {"lazy_refcounts", "on"}},
     3,
     16,
     true},
    {"upgrade and widen",
     {{"cluster_size", "512"}, {"compat", "0.10"}},
     {{"compat", "1.1"}, {"refcount_bits", "64"}},
     3,
     64},
    {"downgrade", {{"cluster_size", "1K"}}, {{"compat", "0.10"}}, 2, 16},
    {"downgrade of an overlay", {{"cluster_size", "1K"}}, {{"compat", "v2"}}, 2, 16, true},
    {"downgrade of a lazy one",
     {{"cluster_size", "8K"}, {"lazy_refcounts", "on"}},
     {{"compat", "v2"}},
     2,
     16,
     true},
    {"narrow and downgrade",
     {{"cluster_size", "1K"}, {"refcount_bits", "64"}},
     {{"compat", "0.10"}, {"refcount_bits", "16"}},
     2,
     16,
     true},
    {"widen", {{"cluster_size", "512"}}, {{"refcount_bits", "64"}}, 3, 64},
    {"widen a little",
     {{"cluster_size", "512"}, {"refcount_bits", "4"}},
     {{"refcount_bits", "8"}},
     3,
     8,
     true},
    {"narrow", {{"cluster_size", "512"}, {"refcount_bits", "64"}}, {{"refcount_bits", "2"}}, 3, 2},
    {"lazy", {{"cluster_size", "1K"}}, {{"lazy_refcounts", "on"}}, 3, 16},
    {"not lazy",
     {{"cluster_size", "1K"}, {"lazy_refcounts", "on"}},
     {{"lazy_refcounts", "off"}},
     3,
     16},
};

} // namespace

TEST_CASE("qcow2 amend: the disk and its snapshots hold what they held, and go on") {
  for (const row& r : rows) {
    CAPTURE(r.name);
    amended_disk d(r.create, r.has_backing);
    d.fill();
    d.snapshot("one");
    d.fill();
    d.snapshot("two");
    d.fill();
    REQUIRE(d.amend(r.change) == "");
    d.fill(); // while it stays open
    d.close();
    d.require(r.version, r.refcount_bits);
    d.open();
    d.fill();
    d.close();
    d.require(r.version, r.refcount_bits);
  }
}

TEST_CASE("qcow2 amend: a crash at any point leaves a sound image that holds what it held") {
  std::mt19937_64 random(3);
  for (const row& r : rows) {
    CAPTURE(r.name);
    amended_disk d(r.create, r.has_backing);
    d.fill();
    d.snapshot("one");
    d.fill();
    d.flush();
    const std::vector<std::byte> start = d.disk().bytes;
    d.disk().keeps_log = true;
    REQUIRE(d.amend(r.change) == "");
    d.close();
    d.disk().keeps_log = false;
    REQUIRE(d.disk().log.size() > 0);
    for_each_cut(start, d.disk().log, random,
                 [&](const std::vector<std::byte>& image, std::size_t cut) {
                   CAPTURE(cut);
                   d.require_content(image);
                 });
  }
}

TEST_CASE("qcow2 amend: whatever fails, nothing is lost, and the next try works") {
  for (const row& r : rows) {
    CAPTURE(r.name);
    u64 nth = 1;
    for (bool has_failed = true; has_failed; nth++) {
      CAPTURE(nth);
      REQUIRE(nth < 3000);
      amended_disk d(r.create, r.has_backing);
      d.fill();
      d.snapshot("one");
      d.fill();
      d.flush();
      u64 seen = 0;
      d.disk().fault = [&](std::string_view, byte_range) -> std::optional<error> {
        if (++seen != nth)
          return std::nullopt;
        return error::from_errno(nth % 2 == 0 ? EIO : ENOSPC, "the test says so");
      };
      const std::string why = d.amend(r.change);
      has_failed = seen >= nth;
      d.disk().fault = nullptr;
      const bool is_stopped = why.contains("takes no more writes") ||
                              d.amend(r.change).contains("takes no more writes");
      (void)d.try_close();
      d.require_content(d.disk().bytes);
      if (is_stopped)
        continue;
      d.require(r.version, r.refcount_bits, true);
      nth += nth / 20; // every one at the beginning, and more and more apart
    }
    CHECK(nth > 3);
  }
}

TEST_CASE("qcow2 amend: a zero cluster that a snapshot has as data is not written to") {
  for (const bool has_backing : {false, true}) {
    CAPTURE(has_backing);
    amended_disk d({{"cluster_size", "1K"}}, has_backing);
    d.write(0, 4096);
    d.snapshot("one");
    d.write(2048, 1024);   // the disk has an L2 table of its own
    d.zero_in_place(0);    // the snapshot's
    d.zero_in_place(2048); // the disk's alone
    CHECK(d.amend({{"compat", "0.10"}}) == "");
    d.close();
    d.require(2, 16);
  }
}

TEST_CASE("qcow2 amend: what cannot be is refused, and nothing is written") {
  struct refusal {
    option_list create;
    option_list change;
    const char* expected;
  };
  const refusal refusals[] = {
      {{}, {}, "nothing to change is given; '-o help' lists what can be"},
      {{}, {{"encrypt.keyslot", "1"}}, "'encrypt.state' is not given: active adds a key"},
      {{},
       {{"backing_file", "x"}},
       "'backing_file' cannot change from '' once an image is made; "
       "a mount does that: 'echo \"backing NODE OTHER\""},
      {{}, {{"backing_fmt", "raw"}}, "'backing_fmt' cannot change from ''"},
      {{},
       {{"cluster_size", "4K"}},
       "'cluster_size' cannot change from '65536' once an image is "
       "made; convert it into a new image"},
      {{}, {{"extended_l2", "on"}}, "'extended_l2' cannot change from 'off'"},
      {{}, {{"compression_type", "zstd"}}, "'compression_type' cannot change from 'zlib'"},
      {{}, {{"data_file", "x"}}, "'data_file' is given, but the image keeps its data itself"},
      {{}, {{"data_file_raw", "on"}}, "'data_file_raw' cannot be turned on"},
      {{}, {{"refcount_bits", "7"}}, "'refcount_bits' is 7; it must be 1, 2, 4, 8, 16, 32 or 64"},
      {{}, {{"size", "1000"}}, "'size' is 1000; the length of a qcow2 disk is a multiple of 512"},
      {{{"cluster_size", "512"}},
       {{"size", "1T"}},
       "'size': a disk of 1099511627776 bytes is too long for clusters of 512 bytes"},
      {{{"compat", "0.10"}},
       {{"lazy_refcounts", "on"}},
       "'lazy_refcounts' needs version 3; give 'compat=1.1'"},
      {{}, {{"compat", "0.10"}, {"lazy_refcounts", "on"}}, "'lazy_refcounts' needs version 3"},
      {{{"compat", "0.10"}},
       {{"refcount_bits", "8"}},
       "version 2 (compat=0.10) has refcounts of 16 bits, not of 8"},
      {{{"refcount_bits", "8"}},
       {{"compat", "0.10"}},
       "version 2 (compat=0.10) has refcounts of 16 bits, not of 8; give 'refcount_bits=16'"},
      {{{"extended_l2", "on"}}, {{"compat", "v2"}}, "the image has extended L2 entries, which"},
      {{{"compression_type", "zstd"}}, {{"compat", "v2"}}, "the image compresses with zstd, which"},
  };
  for (const refusal& r : refusals) {
    CAPTURE(r.expected);
    amended_disk d(r.create, false);
    d.fill();
    d.flush();
    const std::vector<std::byte> before = d.disk().bytes;
    const std::string why = d.amend(r.change);
    CHECK_MESSAGE(why.starts_with(r.expected), why);
    CHECK(is_same(d.disk().bytes, before));
  }
}

TEST_CASE(
    "qcow2 amend: a count that the new width cannot hold is found beforehand, with its place") {
  amended_disk d({{"cluster_size", "1K"}}, false);
  d.fill();
  for (const char* name : {"a", "b", "c", "d"})
    d.snapshot(name);
  d.close();
  d.open();
  const std::vector<std::byte> before = d.disk().bytes;
  const std::string why = d.amend({{"compat", "1.1"}, {"refcount_bits", "2"}});
  CHECK_MESSAGE(why.contains("is referred to 5 times, and refcounts of 2 bits end at 3; delete "
                             "snapshots, or choose a larger 'refcount_bits'"),
                why);
  CHECK(why.contains("cluster 0x"));
  CHECK(is_same(d.disk().bytes, before));
  CHECK(d.amend({{"refcount_bits", "4"}}) == "");
  d.close();
  d.require(3, 4);
}

TEST_CASE("qcow2 amend: the length changes, with the upgrade it needs, and the node knows it") {
  amended_disk d({{"cluster_size", "1K"}, {"compat", "0.10"}}, false);
  d.fill();
  d.snapshot("one");
  CHECK(d.amend({{"size", "1M"}})
            .starts_with("'size': a version 2 image with snapshots cannot change its length"));
  CHECK(d.amend({{"size", "1M"}, {"compat", "1.1"}}) == "");
  CHECK(d.way().length() == 1 << 20);
  d.grown(1 << 20);
  d.fill();
  CHECK(d.amend({{"size", "20K"}}) == "");
  CHECK(d.way().length() == 20 << 10);
  d.grown(20 << 10);
  d.close();
  d.require(3, 16);
}

TEST_CASE("qcow2 amend: what is given as it is changes nothing") {
  amended_disk d({{"cluster_size", "4K"}}, false);
  d.flush();
  const std::vector<std::byte> before = d.disk().bytes;
  CHECK(d.amend({{"cluster_size", "4K"},
                 {"compat", "v3"},
                 {"refcount_bits", "16"},
                 {"extended_l2", "off"},
                 {"compression_type", "zlib"},
                 {"lazy_refcounts", "off"},
                 {"data_file_raw", "off"},
                 {"backing_file", ""},
                 {"size", "40960"}}) == "");
  CHECK(is_same(d.disk().bytes, before));
}

TEST_CASE("qcow2 amend: the data file's name changes, and a raw one may become any") {
  qcow2_bench b;
  b.create("d", 1 << 20, {{"data_file", "x"}, {"data_file_raw", "on"}});
  b.open("d", {{"data-file", "x"}});
  const auto amend = [&](const option_list& list) { return amend_top(b, list); };
  CHECK(amend({{"compat", "0.10"}}).starts_with("the image has an external data file, which"));
  CHECK(amend({{"data_file", "y"}, {"data_file_raw", "off"}}) == "");
  b.close();
  const qcow2::header changed = header_of(memory_disks()["d"]->bytes);
  CHECK(changed.data_file() == "y");
  CHECK_FALSE(changed.has_raw_data_file());
  b.open("d", {{"data-file", "x"}});
  CHECK(amend({{"data_file_raw", "on"}}).starts_with("'data_file_raw' cannot be turned on"));
  CHECK(amend({{"data_file", ""}}) == "");
  CHECK(amend({{"data_file", std::string("a\0b", 3)}}).contains("contains a zero byte"));
  b.close();
  CHECK(header_of(memory_disks()["d"]->bytes).data_file().empty());
}

TEST_CASE("qcow2 amend: bitmaps keep version 3, and stay as they are when counts change") {
  amended_disk d({{"cluster_size", "1K"}}, false);
  d.fill();
  d.close();
  image_editor(d.disk().bytes).add_bitmap("b0");
  d.open();
  CHECK(
      d.amend({{"compat", "0.10"}})
          .starts_with("the image has persistent bitmaps (1), which version 2 (compat=0.10) does"));
  const qcow2::header before = header_of(d.disk().bytes);
  const u64 uncounted = check_image(d.disk().bytes).leaks; // those of bitmaps, for the checker
  CHECK(d.amend({{"refcount_bits", "32"}}) == "");
  d.close();
  const qcow2::header after = header_of(d.disk().bytes);
  CHECK(after.extensions == before.extensions);
  CHECK(after.g.refcount_bits() == 32);
  require_sound(d.disk(), true);
  CHECK(check_image(d.disk().bytes).leaks == uncounted);
}

TEST_CASE("qcow2 amend: a read-only image is refused") {
  qcow2_bench b;
  b.create("d", 1 << 20);
  node& n = b.bench.open(qcow2_bench::image_spec("d", {{"read-only", "on"}}));
  const option_schema* schemas[] = {qcow2_driver_type.amend_options};
  const options given = *validate_options(schemas, to_value({{"compat", "0.10"}}));
  const result<> refused = b.bench.run(n.as_amendable()->amend({.given = given}));
  REQUIRE(!refused);
  CHECK(refused.error().message().starts_with("the image is open read-only: it cannot be amended"));
}
