// SPDX-License-Identifier: MIT
#include "config/render_info.h"
#include "config/render_map.h"

#include "tests/unit/config/test_drivers.h"
#include "tests/unit/lib/graph_bench.h"

#include <doctest/doctest.h>

using namespace bgfs;

TEST_CASE("a map is JSON, entry by entry") {
  map_json_writer writer;
  std::string text = writer.entry({.range = {0, 65536},
                                   .depth = 1,
                                   .is_present = true,
                                   .is_data = true,
                                   .offset = 327680,
                                   .file = "b"});
  text += writer.entry({.range = {65536, 512}, .is_zero = true});
  text += writer.end();
  CHECK(text == "[{ \"start\": 0, \"length\": 65536, \"depth\": 1, \"present\": true, \"zero\": "
                "false, \"data\": true, \"offset\": 327680},\n"
                "{ \"start\": 65536, \"length\": 512, \"depth\": 0, \"present\": false, \"zero\": "
                "true, \"data\": false}]\n");
  CHECK(render_map_json({}) == "[]\n");
}

TEST_CASE("the table lists data that has a place") {
  const map_entry stored{.range = {0x100000, 0x10000},
                         .is_present = true,
                         .is_data = true,
                         .offset = 0x50000,
                         .file = "t.img"};
  const map_entry compressed{
      .range = {0, 512}, .is_present = true, .is_data = true, .is_compressed = true};
  const map_entry zero{.range = {0, 512}, .is_present = true, .is_zero = true, .is_data = true};
  CHECK(map_table_row(stored) == "0x100000        0x10000         0x50000         t.img\n");
  CHECK(map_table_row(zero) == "");
  const auto row = map_table_row(compressed);
  REQUIRE(!row.has_value());
  CHECK(row.error().message() == "File contains external, encrypted or compressed clusters.");
  const std::vector<map_entry> entries = {stored, compressed, zero};
  CHECK(render_map_table(entries) == "Offset          Length          Mapped to       File\n"
                                     "0x100000        0x10000         0x50000         t.img\n"
                                     "0               0x200           -               \n");
}

TEST_CASE("neighbours that say the same are one entry") {
  test::graph_bench bench({&raw_driver_type});
  bench.disk("d", 4 * MiB);
  node& top =
      bench.open(test::spec_builder("top", raw_driver_type).child("file", test::disk_spec("d")));
  const auto entries = bench.must(read_map(top, {0, top.length()}, map_scope::chain));
  REQUIRE(entries.size() == 1);
  CHECK(entries[0].range == byte_range{0, 4 * MiB});
  CHECK(entries[0].is_data);
  CHECK(entries[0].offset == u64{0});
  const auto part = bench.must(read_map(top, {MiB, 512}, map_scope::one_layer));
  REQUIRE(part.size() == 1);
  CHECK(part[0].range == byte_range{MiB, 512});
  CHECK(part[0].offset == MiB);
  CHECK(bench.must(read_map(top, {MiB, 0}, map_scope::chain)).empty());
}

TEST_CASE("an info is text for people") {
  value specific = value::map();
  specific.set("type", "qcow2");
  specific.set("data", value::map{{"compat", "1.1"},
                                  {"lazy-refcounts", false},
                                  {"refcount-bits", 16},
                                  {"bitmaps", value::list{value::map{{"name", "b0"}}}}});
  value info = value::map();
  info.set("virtual-size", 8 * MiB);
  info.set("filename", "t.qcow2");
  info.set("format", "qcow2");
  info.set("actual-size", 331776);
  info.set("cluster-size", 65536);
  info.set("encrypted", true);
  info.set("dirty-flag", true);
  info.set("full-backing-filename", "/x/b.qcow2");
  info.set("backing-filename", "b.qcow2");
  info.set("backing-filename-format", "qcow2");
  info.set("format-specific", specific);
  const std::string one = "image: t.qcow2\n"
                          "file format: qcow2\n"
                          "virtual size: 8 MiB (8388608 bytes)\n"
                          "disk size: 324 KiB\n"
                          "encrypted: yes\n"
                          "cluster_size: 65536\n"
                          "cleanly shut down: no\n"
                          "backing file: b.qcow2 (actual path: /x/b.qcow2)\n"
                          "backing file format: qcow2\n"
                          "Format specific information:\n"
                          "    compat: 1.1\n"
                          "    lazy refcounts: false\n"
                          "    refcount bits: 16\n"
                          "    bitmaps:\n"
                          "        [0]:\n"
                          "            name: b0\n";
  CHECK(render_info(info) == one);
  CHECK(render_info(value::list{info, info}) == one + "\n" + one);
  value bare = value::map();
  bare.set("filename", "x");
  bare.set("backing-filename", "b");
  CHECK(render_info(bare).find("backing file: b (cannot determine actual path)\n") !=
        std::string::npos);
  CHECK(render_info_json(bare) ==
        "{\n    \"filename\": \"x\",\n    \"backing-filename\": \"b\"\n}\n");
}

TEST_CASE("a node is named by its file, or by all it is made of") {
  test::graph_bench bench({&raw_driver_type, &file_driver_type});
  const test::scratch dir;
  const std::string path = dir.write("a.raw", std::string(4096, 'x'));
  const auto file = test::spec_builder("", file_driver_type).set("filename", path);
  node& plain = bench.open(test::spec_builder("plain", raw_driver_type).child("file", file));
  CHECK(filename_of(plain) == path);
  node& window = bench.open(
      test::spec_builder("window", raw_driver_type).set("offset", 512).child("file", file));
  CHECK(filename_of(window) ==
        fmt::format("json:{{\"driver\": \"raw\", \"offset\": 512, \"file\": {{\"driver\": "
                    "\"file\", \"filename\": \"{}\"}}}}",
                    path));
  const value info = bench.must(read_info(plain));
  CHECK(*info.find("filename")->as_text() == path);
  CHECK(*info.find("virtual-size")->as_integer() == 4096);
  CHECK(*info.find("format")->as_text() == "raw");
  CHECK(info.find("format-specific") == nullptr);
  CHECK(*bench.must(read_info(plain, "shown")).find("filename")->as_text() == "shown");
}
