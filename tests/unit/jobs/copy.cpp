// SPDX-License-Identifier: MIT
#include "graph/jobs/copy.h"

#include "drivers/format/raw/raw.h"
#include "tests/unit/lib/graph_bench.h"

#include <doctest/doctest.h>

#include <unistd.h>

using namespace bgfs;
using test::graph_bench;

namespace {

root& open_disk(graph_bench& bench, const std::string& disk, permissions wanted) {
  return bench.attach(bench.open(test::disk_spec(disk)), wanted);
}

// Data, zeroes in data, and a last piece that is no whole unit.
void fill(test::memory_disk& disk, u64 seed) {
  disk.bytes = test::pattern(9 * MiB + 777, seed);
  std::fill_n(disk.bytes.begin() + 3 * MiB, 4 * MiB, std::byte{0});
  std::fill_n(disk.bytes.begin() + 4096, 8192, std::byte{0});
  std::fill_n(disk.bytes.begin() + 20480 + 100, 4096, std::byte{0}); // not aligned: stays data
}

struct written {
  u64 bytes = 0;
  u64 zeroed = 0;
  std::vector<u64> offsets;
};

written look(const test::memory_disk& disk) {
  written w;
  for (const test::memory_event& e : disk.log) {
    if (e.what == test::memory_event::kind::write) {
      w.bytes += e.range.length;
      w.offsets.push_back(e.range.offset);
    }
    if (e.what == test::memory_event::kind::zero)
      w.zeroed += e.range.length;
  }
  return w;
}

} // namespace

TEST_CASE("a copy has the same bytes, whatever the parallelism and the order") {
  for (const unsigned parallel : {1U, 3U, 8U, 16U}) {
    for (const write_order order : {write_order::any, write_order::begun, write_order::finished}) {
      for (const bool reads_zero : {true, false}) {
        CAPTURE(parallel);
        CAPTURE(static_cast<int>(order));
        CAPTURE(reads_zero);
        graph_bench bench({});
        test::memory_disk& from = bench.disk("from");
        fill(from, parallel);
        test::memory_disk& to = bench.disk("to", from.bytes.size());
        if (!reads_zero)
          to.bytes = test::pattern(to.bytes.size(), 99);
        to.keeps_log = true;
        root& source = open_disk(bench, "from", test::may_read);
        root& target = open_disk(bench, "to", test::may_write);
        root_copy_target sink(target, 0);
        copy_plan plan{.sources = {{&source, source.length(), nullptr}},
                       .to = &sink,
                       .parallel = parallel,
                       .order = order,
                       .target_reads_zero = reads_zero};
        bench.must(copy_disks(bench.home(), std::move(plan)));
        CHECK(to.bytes == from.bytes);
        const written w = look(to);
        CHECK(w.zeroed == (reads_zero ? 0 : 4 * MiB + 8192));
        CHECK(w.bytes == from.bytes.size() - 4 * MiB - 8192);
        if (order == write_order::finished)
          CHECK(std::ranges::is_sorted(w.offsets));
        u64 furthest = 0;
        u64 behind = 0;
        for (const u64 offset : w.offsets) {
          furthest = std::max(furthest, offset);
          behind = std::max(behind, furthest - offset);
        }
        if (order == write_order::begun)
          CHECK(behind <= 2 * MiB * parallel); // a piece for each that is under way
      }
    }
  }
}

TEST_CASE("without a zero unit every byte is written") {
  graph_bench bench({});
  fill(bench.disk("from"), 7);
  test::memory_disk& to = bench.disk("to", 9 * MiB + 777);
  to.keeps_log = true;
  root& source = open_disk(bench, "from", test::may_read);
  root_copy_target sink(open_disk(bench, "to", test::may_write), 0);
  copy_plan plan{.sources = {{&source, source.length(), nullptr}}, .to = &sink, .zero_unit = 0};
  plan.target_reads_zero = true;
  bench.must(copy_disks(bench.home(), std::move(plan)));
  CHECK(look(to).bytes == 9 * MiB + 777);
  CHECK(look(to).zeroed == 0);
}

TEST_CASE("sources are laid one behind the other, and progress ends at the end") {
  graph_bench bench({});
  bench.disk("a").bytes = test::pattern(100'000, 1);
  bench.disk("empty");
  bench.disk("b").bytes = test::pattern(3 * MiB, 2);
  test::memory_disk& to = bench.disk("to", 100'000 + 3 * MiB);
  root& a = open_disk(bench, "a", test::may_read);
  root& empty = open_disk(bench, "empty", test::may_read);
  root& b = open_disk(bench, "b", test::may_read);
  root_copy_target sink(open_disk(bench, "to", test::may_write), 0);
  u64 last = 0;
  u64 whole = 0;
  copy_plan plan{.sources = {{&empty, 0, nullptr},
                             {&a, a.length(), nullptr},
                             {&empty, 0, nullptr},
                             {&b, b.length(), nullptr}},
                 .to = &sink};
  plan.progress = [&](u64 done, u64 total) {
    CHECK(done >= last);
    last = done;
    whole = total;
  };
  bench.must(copy_disks(bench.home(), std::move(plan)));
  CHECK(last == 100'000 + 3 * MiB);
  CHECK(whole == last);
  auto expected = test::pattern(100'000, 1);
  const auto tail = test::pattern(3 * MiB, 2);
  expected.insert(expected.end(), tail.begin(), tail.end());
  CHECK(to.bytes == expected);
}

TEST_CASE("a failure anywhere ends the copy with its place, and nothing is left running") {
  struct row {
    std::string disk;
    std::string operation;
    std::string tail;
  };
  for (const row& r : std::initializer_list<row>{{"from", "read", " of the source: broken"},
                                                 {"to", "write", " of the target: broken"},
                                                 {"to", "zero", " of the target: broken"}}) {
    for (const write_order order : {write_order::any, write_order::begun, write_order::finished}) {
      graph_bench bench({});
      test::memory_disk& from = bench.disk("from");
      from.bytes = test::pattern(16 * MiB, 3);
      std::fill_n(from.bytes.begin() + 8 * MiB + 512 * KiB, MiB, std::byte{0});
      test::memory_disk& to = bench.disk("to", 16 * MiB);
      test::memory_disk& broken = r.disk == "from" ? from : to;
      broken.fault = [&](std::string_view operation, byte_range range) -> std::optional<error> {
        if (operation != r.operation || range.end() <= 8 * MiB)
          return std::nullopt;
        return error(error_kind::io, "broken");
      };
      root& source = open_disk(bench, "from", test::may_read);
      root_copy_target sink(open_disk(bench, "to", test::may_write), 0);
      copy_plan plan{.sources = {{&source, source.length(), nullptr}}, .to = &sink, .order = order};
      const result<> outcome = bench.run(copy_disks(bench.home(), std::move(plan)));
      REQUIRE(!outcome.has_value());
      CAPTURE(outcome.error().message());
      CHECK(outcome.error().kind() == error_kind::io);
      CHECK(outcome.error().message().ends_with(r.tail));
    }
  }
}

TEST_CASE("the host copies data where it can, and what it cannot is read and written") {
  for (const unsigned every : {0U, 1U, 3U}) { // so many of the copies fail
    for (const write_order order : {write_order::any, write_order::begun, write_order::finished}) {
      CAPTURE(every);
      CAPTURE(static_cast<int>(order));
      graph_bench bench({});
      test::memory_disk& from = bench.disk("from");
      fill(from, 7);
      test::memory_disk& to = bench.disk("to", from.bytes.size());
      u64 copies = 0;
      u64 refused = 0;
      u64 written_to = 0;
      to.fault = [&](std::string_view what, byte_range) -> std::optional<error> {
        written_to += what == "write" ? 1 : 0;
        if (what != "copy" || every == 0 || ++copies % every != 0)
          return std::nullopt;
        refused++;
        return error::from_errno(EXDEV, "the test says so");
      };
      root& source = open_disk(bench, "from", test::may_read);
      root_copy_target sink(open_disk(bench, "to", test::may_write), 0);
      copy_plan plan{.sources = {{&source, source.length(), nullptr}},
                     .to = &sink,
                     .order = order,
                     .offloads = true};
      bench.must(copy_disks(bench.home(), std::move(plan)));
      CHECK(to.bytes == from.bytes);
      CHECK(written_to == refused);
      CHECK((refused > 0) == (every != 0));
    }
  }
}

TEST_CASE("a rate holds pieces back, and the bytes are the same") {
  graph_bench bench({});
  test::memory_disk& from = bench.disk("from");
  fill(from, 8);
  from.bytes.resize(600 * KiB);
  test::memory_disk& to = bench.disk("to", from.bytes.size());
  to.keeps_log = true;
  root& source = open_disk(bench, "from", test::may_read);
  root_copy_target sink(open_disk(bench, "to", test::may_write), 0);
  copy_plan plan{
      .sources = {{&source, source.length(), nullptr}}, .to = &sink, .bytes_per_second = 4 * MiB};
  const auto begin = std::chrono::steady_clock::now();
  bench.must(copy_disks(bench.home(), std::move(plan)));
  // The last piece begins when all the others would be done with.
  CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(15));
  CHECK(to.bytes == from.bytes);
  CHECK(look(to).offsets.size() > 1);
}

TEST_CASE("a stream gets every byte in order, holes as zeroes") {
  graph_bench bench({});
  test::memory_disk& from = bench.disk("from");
  fill(from, 5);
  root& source = open_disk(bench, "from", test::may_read);
  char name[] = "/tmp/bgfs-stream-XXXXXX";
  const int fd = ::mkstemp(name);
  REQUIRE(fd >= 0);
  ::unlink(name);
  stream_copy_target sink(fd, "the stream");
  copy_plan plan{.sources = {{&source, source.length(), nullptr}}, .to = &sink};
  bench.must(copy_disks(bench.home(), std::move(plan)));
  std::vector<std::byte> bytes(from.bytes.size() + 1);
  CHECK(::pread(fd, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(from.bytes.size()));
  bytes.pop_back();
  CHECK(bytes == from.bytes);
  ::close(fd);

  stream_copy_target closed(-1, "the stream");
  copy_plan failing{.sources = {{&source, source.length(), nullptr}}, .to = &closed};
  const result<> outcome = bench.run(copy_disks(bench.home(), std::move(failing)));
  REQUIRE(!outcome.has_value());
  CHECK(outcome.error().message().find("cannot write to the stream: Bad file descriptor") !=
        std::string::npos);
}
