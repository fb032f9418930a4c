// SPDX-License-Identifier: MIT
// How the limits of a node come from its driver and its children, and follow them.
#include "drivers/format/raw/raw.h"
#include "tests/unit/lib/box_driver.h"
#include "tests/unit/lib/layer_driver.h"

using namespace bgfs;
using namespace bgfs::test;

TEST_CASE(
    "limits come from the children that data is read from, and the driver has the last word") {
  graph_bench bench({&layer_driver_type});
  test_layer top(bench, "top", 4096);
  memory_disk& base = bench.disk("base", 4096);
  top.disk.limits = [](block_limits& l) {
    l.max_transfer = MiB;
    l.max_hw_transfer = 65536;
    l.discard_alignment = 4096;
    l.max_write_zeroes = 1;
    l.max_discard = 1;
    l.write_zeroes_alignment = 65536;
    l.has_variable_length = true;
    l.min_memory_alignment = 4096;
  };
  base.limits = [](block_limits& l) {
    l.max_transfer = 65536;
    l.opt_transfer = 32768;
    l.max_vectors = 16;
    l.max_hw_vectors = 8;
    l.request_alignment = 4096;
  };
  node& n = bench.open(top.spec().child("backing", disk_spec("base")));
  const block_limits expected{.request_alignment = 512, // its own
                              .discard_alignment = 4096,
                              .opt_transfer = 32768,
                              .max_transfer = 65536,
                              .max_hw_transfer = 65536,
                              .max_hw_vectors = 8,
                              .min_memory_alignment = 4096,
                              .opt_memory_alignment = 4096,
                              .max_vectors = 16};
  CHECK(n.limits() == expected);
}

TEST_CASE("a parent's limits follow when its child's change") {
  graph_bench bench({&raw_driver_type, &pass_driver_type});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  node& top = bench.open(
      spec_builder("top", pass_driver_type)
          .child("file", spec_builder("mid", raw_driver_type).child("file", disk_spec("d"))));
  root& r = bench.attach(top, may_resize);
  CHECK(top.limits().max_transfer == 0);
  disk.max_transfer = 4096;
  bench.must(r.truncate(128 * KiB)); // refreshes the leaf
  CHECK(top.limits().max_transfer == 4096);
  disk.limits = [](block_limits& l) { l.opt_transfer = 1024; };
  top.child("file")->child().child("file")->child().refresh_limits(); // as its driver may
  CHECK(top.limits().opt_transfer == 1024);
}

TEST_CASE("a node whose length may change by itself is asked with each request") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 4096);
  disk.limits = [](block_limits& l) { l.has_variable_length = true; };
  node& top = bench.open(
      spec_builder("top", raw_driver_type).set("discard", "unmap").child("file", disk_spec("d")));
  root& r = bench.attach(top);
  CHECK(top.limits().has_variable_length);
  disk.bytes.resize(8192);
  std::vector<std::byte> bytes(512);
  bench.must(r.read(7680, bytes));
  CHECK(r.length() == 8192);
  disk.bytes.resize(1024);
  CHECK(bench.run(r.write(2048, bytes)).error().kind() == error_kind::out_of_range);
  CHECK(r.length() == 1024);
  disk.bytes.resize(2048);
  bench.must(r.discard({1024, 1024}));
  disk.bytes.resize(4096);
  bench.must(r.write_zeroes({3072, 1024}));
  disk.bytes.resize(6144);
  CHECK(bench.must(r.status_above({4096, 8192})).length == 2048);
}
