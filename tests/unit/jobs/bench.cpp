// SPDX-License-Identifier: MIT
#include "graph/jobs/bench.h"

#include "tests/unit/lib/graph_bench.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

root& open_disk(graph_bench& bench) {
  return bench.attach(bench.open(disk_spec("d")), may_write);
}

} // namespace

TEST_CASE(
    "bench: as many requests as asked for, where they belong, not more at once than allowed") {
  graph_bench bench({});
  memory_disk& d = bench.disk("d", 100'000);
  root& disk = open_disk(bench);
  std::vector<u64> offsets;
  d.fault = [&](std::string_view operation, byte_range range) -> std::optional<error> {
    CHECK(operation == "read");
    CHECK(range.length == 4096);
    CHECK(disk.in_flight() <= 3);
    offsets.push_back(range.offset);
    return std::nullopt;
  };
  for (const u64 step : {8192, 30'000}) { // the longer one goes on behind the beginning
    offsets.clear();
    const bench_plan plan{
        .disk = &disk, .count = 40, .depth = 3, .length = 4096, .offset = 8192, .step = step};
    bench.must(run_bench(bench.home(), plan));
    std::vector<u64> expected;
    u64 at = 8192;
    for (unsigned i = 0; i < 40; i++) {
      expected.push_back(at);
      at = (at + step) % 100'000;
      if (at + 4096 > 100'000)
        at = 0;
    }
    std::ranges::sort(offsets);
    std::ranges::sort(expected);
    CHECK(offsets == expected);
  }
}

TEST_CASE("bench: writes have the pattern, and a flush comes after so many of them") {
  for (const bool drains : {true, false}) {
    graph_bench bench({});
    memory_disk& d = bench.disk("d", 64 * KiB);
    root& disk = open_disk(bench);
    u64 writes = 0;
    u64 flushes = 0;
    d.fault = [&](std::string_view operation, byte_range) -> std::optional<error> {
      writes += operation == "write" ? 1 : 0;
      flushes += operation == "flush" ? 1 : 0;
      if (operation == "flush" && drains)
        CHECK(disk.in_flight() == 1);
      return std::nullopt;
    };
    const bench_plan plan{.disk = &disk,
                          .count = 30,
                          .depth = 4,
                          .length = 4096,
                          .step = 4096,
                          .is_writing = true,
                          .pattern = std::byte{7},
                          .flush_interval = 10,
                          .drains_to_flush = drains};
    bench.must(run_bench(bench.home(), plan));
    CHECK(writes == 30);
    CHECK(flushes == 3);
    CHECK(d.bytes == std::vector<std::byte>(64 * KiB, std::byte{7}));
    d.fault = nullptr;
  }
}

TEST_CASE("bench: what does not fit, or fails, is said") {
  graph_bench bench({});
  memory_disk& d = bench.disk("d", 8192);
  root& disk = open_disk(bench);
  bench_plan plan{.disk = &disk, .count = 9, .depth = 2, .length = 4096, .offset = 4097, .step = 1};
  result<> done = bench.run(run_bench(bench.home(), plan));
  REQUIRE(!done.has_value());
  CHECK(done.error().message().contains("does not lie inside the disk of 8192 bytes"));
  plan.offset = 0;
  plan.depth = 1; // several may begin in any order
  d.fault = [](std::string_view, byte_range) { return error::from_errno(EIO, "the test says so"); };
  done = bench.run(run_bench(bench.home(), plan));
  REQUIRE(!done.has_value());
  CHECK(done.error().message() ==
        "reading 4096 bytes at 0x0: the test says so: Input/output error");
}
