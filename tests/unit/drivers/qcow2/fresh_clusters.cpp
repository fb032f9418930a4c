// SPDX-License-Identifier: MIT
// Clusters that were never written, for guest bytes that are zero: the table refers to them before
// the data are there, and writers beside each other do not wait. Everybody else does.
#include "graph/base/is_zero.h"
#include "graph/io/sleep.h"
#include "graph/io/spawn.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/background.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 cluster = 4096;
constexpr u64 slow_length = 600; // of the write that is held back, as nothing else is

task<void> write_and_note(root& way, u64 offset, std::span<const std::byte> bytes, bool& is_done) {
  co_await way.write(offset, bytes);
  is_done = true;
}

task<void> let_others_run() {
  for (int i = 0; i < 50; i++)
    co_await sleep_for(std::chrono::nanoseconds(0));
}

struct outcome {
  bool is_neighbour_done = false; // while the slow one was held
  std::vector<std::byte> crashed; // the disk after a flush while the slow one was held
  result<> slow;
};

struct pair_of_writes {
  root& way;
  memory_disk& disk;
  std::vector<std::byte> slow = pattern(slow_length, 1);
  std::vector<std::byte> neighbour = pattern(500, 2);
};

// A write of 600 bytes whose data wait, and one of 500 bytes behind it in the same cluster.
task<void> write_both(loop& home, pair_of_writes& w, outcome& seen) {
  co_await w.way.write(12 * cluster, w.neighbour); // so that there is a table
  event gate;
  bool is_held = false; // the first data, and nothing of what follows
  w.disk.hold = [&](std::string_view operation, byte_range range) -> event* {
    if (is_held || operation != "write" || (range.length != slow_length && range.length != cluster))
      return nullptr;
    is_held = true;
    return &gate;
  };
  task_group group(home);
  bool is_slow_done = false;
  group.spawn(write_and_note(w.way, 0, w.slow, is_slow_done));
  co_await let_others_run();
  CHECK_FALSE(is_slow_done);
  group.spawn(write_and_note(w.way, 1024, w.neighbour, seen.is_neighbour_done));
  co_await let_others_run();
  const bool was_done = seen.is_neighbour_done;
  co_await w.way.flush();
  seen.crashed = w.disk.bytes;
  gate.set();
  seen.slow = co_await as_result(group.join());
  CHECK(seen.is_neighbour_done);
  seen.is_neighbour_done = was_done;
  w.disk.hold = nullptr;
}

std::vector<std::byte> expected(const pair_of_writes& w, std::vector<std::byte> content) {
  std::ranges::copy(w.slow, content.begin());
  std::ranges::copy(w.neighbour, content.begin() + 1024);
  std::ranges::copy(w.neighbour, content.begin() + 12 * cluster);
  return content;
}

} // namespace

TEST_CASE("qcow2: writers into one fresh cluster do not wait, and a crash shows zeroes or data") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 16 * cluster, {{"cluster_size", "4K"}});
  pair_of_writes w{b.open("d"), disk};
  outcome seen;
  b.bench.must(write_both(b.bench.home(), w, seen));
  CHECK(seen.slow.has_value());
  CHECK(seen.is_neighbour_done);
  require_sound(disk, true);
  // The flush left a table that refers to the cluster: it holds what was written, and zeroes.
  CHECK(check_image(seen.crashed).errors.empty());
  std::vector<std::byte> after_crash(16 * cluster);
  std::ranges::copy(w.neighbour, after_crash.begin() + 1024);
  std::ranges::copy(w.neighbour, after_crash.begin() + 12 * cluster);
  CHECK(read_disk(seen.crashed) == after_crash);
  const auto content = expected(w, std::vector<std::byte>(16 * cluster));
  CHECK(read_all(b.bench, w.way) == content);
  b.close();
  require_sound(disk);
  CHECK(read_disk(disk.bytes) == content);
}

TEST_CASE("qcow2: over data of a base the table waits for the copy, and so do writers beside it") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 16 * cluster, {{"cluster_size", "4K"}});
  const auto base = pattern(8 * cluster, 9);
  b.place("base", base);
  pair_of_writes w{b.open("d", {}, "base"), disk};
  outcome seen;
  b.bench.must(write_both(b.bench.home(), w, seen));
  CHECK(seen.slow.has_value());
  CHECK_FALSE(seen.is_neighbour_done);
  auto content = base;
  content.resize(16 * cluster);
  auto after_crash = content; // nothing is linked yet
  std::ranges::copy(w.neighbour, after_crash.begin() + 12 * cluster);
  CHECK(read_disk(seen.crashed, base) == after_crash);
  CHECK(check_image(seen.crashed).errors.empty());
  CHECK(read_all(b.bench, w.way) == expected(w, content));
  b.close();
  require_sound(disk);
  CHECK(read_disk(disk.bytes, base) == expected(w, content));
}

TEST_CASE("qcow2: past the end of a short base clusters are fresh, across its end they are not") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 16 * cluster, {{"cluster_size", "4K"}});
  const auto base = pattern(100, 9); // the first cluster shows it
  b.place("base", base);
  pair_of_writes w{b.open("d", {}, "base"), disk};
  outcome seen;
  b.bench.must(write_both(b.bench.home(), w, seen));
  CHECK_FALSE(seen.is_neighbour_done);
  std::vector<std::byte> model = base;
  model.resize(16 * cluster);
  model = expected(w, model);
  b.bench.must(w.way.write(3 * cluster + 7, w.neighbour)); // fresh
  std::ranges::copy(w.neighbour, model.begin() + 3 * cluster + 7);
  CHECK(read_all(b.bench, w.way) == model);
  b.close();
  require_sound(disk);
}

TEST_CASE("qcow2: a failed write into a fresh cluster leaves zeroes around it, and nothing leaks") {
  for (const char* extended : {"off", "on"}) {
    CAPTURE(extended);
    qcow2_bench b;
    memory_disk& disk =
        b.create("d", 16 << 16, {{"cluster_size", "64K"}, {"extended_l2", extended}});
    root& way = b.open("d");
    disk.fault = [](std::string_view operation, byte_range range) -> std::optional<error> {
      if (operation == "write" && range.length == slow_length)
        return error::from_errno(EIO, "the test says so");
      return std::nullopt;
    };
    const result<> failed = b.bench.run(way.write(2100, pattern(slow_length, 1)));
    CHECK_FALSE(failed.has_value());
    disk.fault = nullptr;
    CHECK(is_zero(read_all(b.bench, way)));
    b.bench.must(way.flush());
    require_sound(disk);
    const auto bytes = pattern(slow_length, 4);
    b.bench.must(way.write(2100, bytes));
    std::vector<std::byte> model(16 << 16);
    std::ranges::copy(bytes, model.begin() + 2100);
    CHECK(read_all(b.bench, way) == model);
    b.close();
    require_sound(disk);
    CHECK(read_disk(disk.bytes) == model);
  }
}

TEST_CASE("qcow2: a cluster that was used before is not fresh: its old bytes never show") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 16 * cluster, {{"cluster_size", "4K"}});
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(4 * cluster, 5)));
  b.bench.must(way.discard({0, 4 * cluster}));
  b.bench.must(way.flush()); // frees them
  pair_of_writes w{way, disk};
  outcome seen;
  b.bench.must(write_both(b.bench.home(), w, seen));
  CHECK_FALSE(seen.is_neighbour_done);
  const auto after_crash = read_disk(seen.crashed);
  CHECK(is_zero(std::span(after_crash).first(12 * cluster)));
  const auto content = expected(w, std::vector<std::byte>(16 * cluster));
  CHECK(read_all(b.bench, way) == content);
  b.close();
  require_sound(disk);
  CHECK(read_disk(disk.bytes) == content);
}

TEST_CASE("qcow2: writers into one cluster over a base wait for one copy, which is one read") {
  for (u64 seed = 1; seed <= 4; seed++) {
    CAPTURE(seed);
    qcow2_bench b({.shuffle_seed = seed});
    memory_disk& disk = b.create("d", 16 << 16, {{"cluster_size", "64K"}});
    const auto base = pattern(8 << 16, 9);
    memory_disk& below = b.place("base", base);
    root& way = b.open("d", {}, "base");
    u64 reads = 0;
    below.fault = [&](std::string_view operation, byte_range) -> std::optional<error> {
      reads += operation == "read";
      return std::nullopt;
    };
    auto model = base;
    model.resize(16 << 16);
    std::vector<std::vector<std::byte>> data;
    for (u64 i = 0; i < 12; i++)
      data.push_back(pattern(1000, i));
    background writers(b.bench);
    for (u64 i = 0; i < data.size(); i++) {
      const u64 at = 65536 + 2000 + i * 4096; // off the edges: whoever is first copies both sides
      writers.spawn(way.write(at, data[i]));
      std::ranges::copy(data[i], model.begin() + static_cast<i64>(at));
    }
    CHECK(writers.finish().has_value());
    CHECK(reads == 1);
    CHECK(read_all(b.bench, way) == model);
    b.close();
    require_sound(disk);
    CHECK(read_disk(disk.bytes, base) == model);
  }
}

TEST_CASE("qcow2: zeroes in a part of a cluster past the end of a short base are the image's own") {
  qcow2_bench b;
  b.create("d", 64 << 10, {{"cluster_size", "4K"}});
  b.place("base", pattern(34816, 1)); // half of cluster 8
  root& way = b.open("d", {}, "base");
  b.bench.must(way.write_zeroes({35840, 1024}));
  const block_status s = b.bench.must(b.top().status({35840, 1024}));
  CHECK(s.is_allocated);
  b.close();
  memory_disks()["base"]->bytes = pattern(64 << 10, 1); // a longer one takes its place
  root& again = b.open("d", {}, "base");
  std::vector<std::byte> bytes(4096);
  b.bench.must(again.read(32768, bytes));
  std::vector<std::byte> expected = pattern(34816, 1);
  expected.resize(36864);
  CHECK(is_same(bytes, std::span(expected).subspan(32768)));
}

TEST_CASE("qcow2: what a write covers need not be readable in the base") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 4 << 16, {{"cluster_size", "64K"}});
  const auto base = pattern(4 << 16, 9);
  memory_disk& below = b.place("base", base);
  root& way = b.open("d", {}, "base");
  const byte_range bad{65536 + 8192, 512};
  below.fault = [&](std::string_view operation, byte_range range) -> std::optional<error> {
    if (operation != "read" || !range.overlaps(bad))
      return std::nullopt;
    return error::from_errno(EIO, "the test says so");
  };
  CHECK_FALSE(b.bench.run(way.write(65536, pattern(4096, 1))).has_value());
  require_sound(disk);
  const auto bytes = pattern(4096, 2);
  b.bench.must(way.write(65536 + 8192, bytes));
  auto model = base;
  std::ranges::copy(bytes, model.begin() + 65536 + 8192);
  CHECK(read_all(b.bench, way) == model);
  b.close();
  require_sound(disk);
}
