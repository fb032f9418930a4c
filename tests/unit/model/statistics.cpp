// SPDX-License-Identifier: MIT
// What nodes count and tell: statistics, histograms, the write threshold, errors, corruption.
#include "drivers/format/raw/raw.h"
#include "graph/io/file.h"
#include "tests/unit/lib/layer_driver.h"

using namespace bgfs;
using namespace bgfs::test;

TEST_CASE("latencies are counted in bins of powers of two from a microsecond") {
  using h = latency_histogram;
  CHECK(h::bin_of(0) == 0);
  CHECK(h::bin_of(999) == 0);
  CHECK(h::bin_of(1000) == 1);
  CHECK(h::bin_of(1999) == 1);
  CHECK(h::bin_of(2000) == 2);
  CHECK(h::bin_of(1'000'000) == 10);
  CHECK(h::bin_of(~u64{0}) == h::bin_count - 1);
  for (std::size_t i = 0; i + 1 < h::bin_count; i++) {
    CHECK(h::bin_of(h::boundary_of(i) - 1) == i);
    CHECK(h::bin_of(h::boundary_of(i)) == i + 1);
  }
}

TEST_CASE("requests, bytes, time, failures and refusals are counted for each kind") {
  graph_bench bench({});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  node& top = bench.open(disk_spec("d").set("discard", "unmap"));
  root& r = bench.attach(top);
  const node_statistics& s = top.statistics();
  CHECK_FALSE(s.last_access.has_value());
  std::vector<std::byte> bytes(1000);
  bench.must(r.read(0, bytes));
  bench.must(r.write(100, bytes));
  bench.must(r.write_zeroes({4096, 5000}));
  bench.must(r.discard({0, 300}));
  bench.must(r.flush());
  bench.must(r.flush());
  CHECK_FALSE(bench.run(r.read(64 * KiB, bytes)).has_value());
  disk.fault = [](std::string_view, byte_range) -> std::optional<error> {
    return error(error_kind::io, "injected");
  };
  CHECK_FALSE(bench.run(r.write(0, bytes)).has_value());
  const struct {
    operation kind;
    u64 count, bytes, failed, invalid;
  } rows[] = {{operation::read, 1, 1000, 0, 1},
              {operation::write, 1, 1000, 1, 0},
              {operation::zero, 1, 5000, 0, 0},
              {operation::discard, 1, 300, 0, 0},
              {operation::flush, 2, 0, 0, 0}};
  for (const auto& row : rows) {
    CAPTURE(to_string(row.kind));
    const operation_statistics& o = s.of(row.kind);
    CHECK(o.count == row.count);
    CHECK(o.bytes == row.bytes);
    CHECK(o.failed == row.failed);
    CHECK(o.invalid == row.invalid);
    CHECK(o.time_ns > 0);
    u64 in_bins = 0;
    for (const u64 bin : o.latency.bins)
      in_bins += bin;
    CHECK(in_bins == row.count);
  }
  CHECK(s.merged_flushes == 1);
  CHECK(s.write_highest_offset == 9096);
  CHECK(s.last_access.has_value());
}

TEST_CASE("the first write past the threshold is told once") {
  graph_bench bench({});
  event_log log;
  bench.graph().set_events(&log);
  bench.disk("d", 64 * KiB);
  node& top = bench.open(disk_spec("d"));
  root& r = bench.attach(top);
  const auto data = pattern(512, 1);
  bench.must(r.write(32 * KiB, data)); // off
  top.set_write_threshold(8192);
  bench.must(r.write(8192 - 512, data)); // ends at it
  CHECK(log.events.empty());
  CHECK(top.write_threshold() == 8192);
  bench.must(r.write_zeroes({8000, 1000}));
  REQUIRE(log.events.size() == 1);
  CHECK(log.events[0].first == "BLOCK_WRITE_THRESHOLD");
  CHECK(to_json(log.events[0].second) ==
        R"({"node-name": "#block000", "amount-exceeded": 808, "write-threshold": 8192})");
  CHECK(top.write_threshold() == 0);
  bench.must(r.write(32 * KiB, data));
  CHECK(log.events.size() == 1);
  top.set_write_threshold(100);
  bench.must(r.write(90, data));
  CHECK(log.events.size() == 2);
}

TEST_CASE("failing requests are told where the graph is used, at most once a second") {
  graph_bench bench({&raw_driver_type});
  event_log log;
  bench.graph().set_events(&log);
  memory_disk& disk = bench.disk("d", 64 * KiB);
  node& top = bench.open(spec_builder("top", raw_driver_type).child("file", disk_spec("d")));
  root& r = bench.attach(top);
  std::vector<std::byte> bytes(512);
  CHECK_FALSE(bench.run(r.read(64 * KiB, bytes)).has_value()); // a mistake of the asker
  CHECK(log.events.empty());
  disk.fault = [](std::string_view, byte_range) -> std::optional<error> {
    return error::from_errno(ENOSPC, "the test disk is full");
  };
  for (int i = 0; i < 100; i++)
    CHECK_FALSE(bench.run(r.write(0, bytes)).has_value());
  REQUIRE(log.count("BLOCK_IO_ERROR") == 1);
  const value& data = log.events[0].second;
  CHECK(*data.find("device")->as_text() == "test");
  CHECK(*data.find("node-name")->as_text() == "top"); // and not its file, which nobody uses
  CHECK(*data.find("operation")->as_text() == "write");
  CHECK(*data.find("nospace")->as_bool());
  CHECK(data.find("reason")->as_text()->starts_with("the test disk is full"));
  CHECK(*data.find("suppressed")->as_integer() == 0);
}

TEST_CASE("a corrupt image is told once, and takes no more writes") {
  graph_bench bench({});
  event_log log;
  bench.graph().set_events(&log);
  bench.disk("d", 4096);
  node& top = bench.open(disk_spec("d"));
  root& r = bench.attach(top);
  CHECK(top.report_corruption("two tables are one").kind() == error_kind::corrupt_image);
  (void)top.report_corruption("and again");
  REQUIRE(log.events.size() == 1);
  CHECK(log.events[0].first == "BLOCK_IMAGE_CORRUPTED");
  CHECK(to_json(log.events[0].second) ==
        R"({"node-name": "#block000", "msg": "two tables are one", "fatal": true})");
  CHECK_FALSE(bench.run(r.write(0, pattern(512, 1))).has_value());
  CHECK(top.statistics().of(operation::write).invalid == 1);
  std::vector<std::byte> bytes(512);
  bench.must(r.read(0, bytes));
}
