// SPDX-License-Identifier: MIT
// Reads, writes, zero writes, discards, flushes and truncates of a node, against a byte array.
#include "drivers/format/raw/raw.h"
#include "graph/base/is_zero.h"
#include "tests/unit/lib/graph_bench.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

spec_builder raw_over(std::string disk) {
  return spec_builder("top", raw_driver_type)
      .set("discard", "unmap")
      .child("file", disk_spec(std::move(disk)));
}

} // namespace

TEST_CASE("requests outside the node are refused and change nothing") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 4096);
  root& r = bench.attach(bench.open(raw_over("d")));
  std::vector<std::byte> bytes(512);
  struct row {
    u64 offset;
    u64 length;
  };
  for (const row& at : {row{4096, 1}, row{4000, 512}, row{~u64{0}, 512}, row{~u64{0} - 100, 200}}) {
    bytes.resize(at.length);
    const result<> read = bench.run(r.read(at.offset, bytes));
    REQUIRE(!read);
    CHECK(read.error().kind() == error_kind::out_of_range);
    CHECK(bench.run(r.write(at.offset, bytes)).error().kind() == error_kind::out_of_range);
    CHECK(bench.run(r.write_zeroes({at.offset, at.length})).error().kind() ==
          error_kind::out_of_range);
    CHECK(bench.run(r.discard({at.offset, at.length})).error().kind() == error_kind::out_of_range);
  }
  CHECK(disk.operations == 0);
  CHECK(bench.run(r.read(0x200, std::span(bytes).first(0))).has_value());
  bytes.resize(4097);
  CHECK(bench.run(r.read(0, bytes)).error().message().ends_with("it ends at 0x1000"));
}

TEST_CASE("unaligned requests reach the driver aligned, and their neighbours keep their bytes") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 8192);
  disk.bytes = pattern(8192, 1);
  disk.request_alignment = 512;
  disk.fault = [](std::string_view what, byte_range r) -> std::optional<error> {
    if (what != "flush" && what != "truncate" && !r.is_aligned_to(512))
      return error(error_kind::io, fmt::format("unaligned {}", what));
    return std::nullopt;
  };
  auto model = disk.bytes;
  root& r = bench.attach(bench.open(raw_over("d")));
  CHECK(bench.graph().find("top")->child("file")->child().limits().request_alignment == 512);
  for (const auto& [offset, length] : {std::pair{1u, 1u},
                                       {511u, 2u},
                                       {100u, 300u},
                                       {700u, 3000u},
                                       {512u, 512u},
                                       {8191u, 1u},
                                       {0u, 8192u},
                                       {1024u, 100u}}) {
    const auto data = pattern(length, offset + 7);
    bench.must(r.write(offset, data));
    std::copy(data.begin(), data.end(), model.begin() + offset);
    CHECK(disk.bytes == model);
    std::vector<std::byte> seen(length);
    bench.must(r.read(offset, seen));
    CHECK(seen == data);
    bench.must(r.write_zeroes({offset, length / 2}));
    std::fill_n(model.begin() + offset, length / 2, std::byte{0});
    CHECK(disk.bytes == model);
  }
}

TEST_CASE("requests are split by max_transfer") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  disk.max_transfer = 4096;
  disk.can_zero = false;
  u64 longest = 0;
  disk.fault = [&](std::string_view, byte_range r) -> std::optional<error> {
    longest = std::max(longest, r.length);
    return std::nullopt;
  };
  root& r = bench.attach(bench.open(raw_over("d")));
  const auto data = pattern(60000, 3);
  bench.must(r.write(1000, data));
  std::vector<std::byte> seen(60000);
  bench.must(r.read(1000, seen));
  CHECK(seen == data);
  bench.must(r.write_zeroes({0, 64 * KiB}));
  CHECK(is_zero(disk.bytes));
  CHECK(longest == 4096);
}

TEST_CASE("zero writes fall back to writing, unless told not to") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 3 * MiB);
  disk.bytes = pattern(3 * MiB, 5);
  disk.can_zero = false;
  root& r = bench.attach(bench.open(raw_over("d")));
  const result<> strict = bench.run(r.write_zeroes({0, 4096}, write_flag::no_fallback));
  REQUIRE(!strict);
  CHECK(strict.error().kind() == error_kind::unsupported);
  CHECK_FALSE(is_zero(std::span(disk.bytes).first(4096)));
  bench.must(r.write_zeroes({4096, 2 * MiB}));
  CHECK(is_zero(std::span(disk.bytes).subspan(4096, 2 * MiB)));
  CHECK(disk.bytes[4095] == pattern(3 * MiB, 5)[4095]);
  CHECK(disk.bytes[4096 + 2 * MiB] == pattern(3 * MiB, 5)[4096 + 2 * MiB]);
}

TEST_CASE("discards are advice: off by default, and no error where the driver cannot") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 8192);
  node& off = bench.open(spec_builder("off", raw_driver_type).child("file", disk_spec("d")));
  root& r = bench.attach(off);
  bench.must(r.discard({0, 4096}));
  CHECK(disk.operations == 0);
  memory_disk& other = bench.disk("e", 8192);
  other.can_discard = false;
  root& r2 = bench.attach(bench.open(raw_over("e")));
  bench.must(r2.discard({0, 4096}));
  other.can_discard = true;
  bench.must(r2.discard({0, 4096}));
  CHECK(other.bytes[0] == std::byte{0xdd});
}

TEST_CASE("detect-zeroes turns written zeroes into zero writes") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 8192);
  disk.keeps_log = true;
  root& r = bench.attach(bench.open(raw_over("d").set("detect-zeroes", "unmap")));
  bench.must(r.write(0, std::vector<std::byte>(4096)));
  bench.must(r.write(4096, pattern(4096, 1)));
  REQUIRE(disk.log.size() == 2);
  CHECK(disk.log[0].what == memory_event::kind::zero);
  CHECK(disk.log[1].what == memory_event::kind::write);
}

TEST_CASE("a flush without writes since the last one costs no trip to the disk") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 8192);
  disk.keeps_log = true;
  root& r = bench.attach(bench.open(raw_over("d")));
  bench.must(r.flush());
  CHECK(disk.log.empty());
  bench.must(r.write(0, pattern(512, 1)));
  bench.must(r.flush());
  bench.must(r.flush());
  REQUIRE(disk.log.size() == 2);
  CHECK(disk.log[1].what == memory_event::kind::flush);
  disk.fault = [](std::string_view what, byte_range) -> std::optional<error> {
    if (what == "flush")
      return error(error_kind::io, "the disk does not answer");
    return std::nullopt;
  };
  bench.must(r.write(0, pattern(512, 2)));
  CHECK_FALSE(bench.run(r.flush()).has_value());
  CHECK_FALSE(bench.run(r.flush()).has_value()); // still not durable: it must not claim so
  disk.fault = nullptr;
  bench.must(r.flush());
}

TEST_CASE("a durable write is flushed where the driver cannot do it itself") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 8192);
  disk.keeps_log = true;
  root& r = bench.attach(bench.open(raw_over("d")));
  bench.must(r.write(0, pattern(512, 1), write_flag::durable));
  REQUIRE(disk.log.size() == 2);
  CHECK(disk.log[1].what == memory_event::kind::flush);
}

TEST_CASE("a read-only node and a root without the permission refuse writes") {
  graph_bench bench({&raw_driver_type});
  bench.disk("d", 8192);
  node& top = bench.open(raw_over("d").set("read-only", true));
  root& r = bench.attach(top, may_read);
  const result<> w = bench.run(r.write(0, pattern(512, 1)));
  REQUIRE(!w);
  CHECK(w.error().message() == "test may not write: it was opened read-only");
  const auto second = bench.run(bench.graph().attach("writer", top, may_write));
  REQUIRE(!second);
  CHECK(second.error().message() ==
        "node 'top' (raw) is read-only; open it with 'read-only: false' to write");
}

TEST_CASE("truncating needs the permission, tells the parents and gives zeroes") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 4096);
  disk.bytes = pattern(4096, 1);
  node& top = bench.open(raw_over("d"));
  root& plain = bench.attach(top);
  const result<> refused = bench.run(plain.truncate(8192));
  REQUIRE(!refused);
  CHECK(refused.error().message() == "test may not change its length");
  root& r = bench.attach(top, may_resize);
  bench.must(r.truncate(8192));
  CHECK(top.length() == 8192);
  CHECK(is_zero(std::span(disk.bytes).subspan(4096)));
  const result<> absurd = bench.run(r.truncate(~u64{0}));
  REQUIRE(!absurd);
  CHECK(absurd.error().kind() == error_kind::out_of_range);
  const result<> shrunk = bench.run(r.truncate(512, {.prealloc = preallocation::full}));
  REQUIRE(!shrunk);
  CHECK(shrunk.error().message().starts_with("preallocation is only for growing"));
  bench.must(r.truncate(512));
  CHECK(top.length() == 512);
  bench.must(r.write(512, pattern(100, 9))); // a parent that may resize grows it by writing
  CHECK(top.length() == 612);
  disk.can_resize = false;
}

namespace {

struct random_run {
  graph_bench& bench;
  root& r;
  std::vector<std::byte>& model;
  std::mt19937_64 random;
  u64 failures = 0;

  byte_range range() {
    const u64 offset = random() % model.size();
    return {offset, 1 + random() % std::min<u64>(model.size() - offset, 3000)};
  }
};

// A band of its own for each writer; readers look everywhere and only check bands nobody writes.
task<void> writer(random_run& run, byte_range band, u64 seed, int rounds) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < rounds; i++) {
    const u64 offset = band.offset + random() % band.length;
    const u64 length = 1 + random() % (band.end() - offset);
    const auto at = run.model.begin() + static_cast<i64>(offset);
    const u64 kind = random() % 4;
    if (kind == 0) {
      std::fill_n(at, length, std::byte{0});
      co_await run.r.write_zeroes({offset, length});
    } else if (kind == 1) {
      std::vector<std::byte> seen(length);
      co_await run.r.read(offset, seen);
      if (!std::equal(seen.begin(), seen.end(), at))
        run.failures++;
    } else {
      const auto data = pattern(length, random());
      std::copy(data.begin(), data.end(), at);
      co_await run.r.write(offset, data);
    }
  }
}

task<void> all_writers(random_run& run, u64 seed) {
  std::vector<task<void>> tasks;
  // Bands that meet in the middle of blocks: neighbours share a block but never a byte.
  const u64 width = 700;
  for (u64 at = 0; at + width <= run.model.size(); at += width)
    tasks.push_back(writer(run, {at, width}, seed + at, 25));
  co_await when_all(std::move(tasks));
}

} // namespace

TEST_CASE("concurrent unaligned requests that share blocks never lose a neighbour's byte") {
  for (u64 seed = 1; seed <= 30; seed++) {
    CAPTURE(seed);
    graph_bench bench({&raw_driver_type}, {.shuffle_seed = seed});
    memory_disk& disk = bench.disk("d", 16 * KiB);
    disk.request_alignment = 4096;
    disk.can_zero = seed % 2 == 0;
    root& r = bench.attach(bench.open(raw_over("d")));
    std::vector<std::byte> model(16 * KiB);
    random_run run{bench, r, model, std::mt19937_64(seed)};
    bench.must(all_writers(run, seed));
    CHECK(run.failures == 0);
    CHECK(disk.bytes == model);
  }
}
