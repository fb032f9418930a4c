// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/increment/increment_layout.h"

#include "drivers/format/raw/raw.h"
#include "graph/io/sleep.h"
#include "graph/io/spawn.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/bitmap_actions.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;
using namespace bgfs::qcow2;

namespace {

spec_builder increment_spec(const std::string& disk, const std::string& node_name,
                            const std::string& bitmap) {
  spec_builder s("increment", qcow2_increment_driver_type);
  s.set("read-only", true).set("bitmap-node", node_name).set("bitmap", bitmap);
  return s.child("file", disk.c_str());
}

ranked_bits sealed(u64 count, const std::vector<u64>& members = {}) {
  ranked_bits bits(count);
  for (const u64 i : members)
    bits.set(i);
  bits.seal();
  return bits;
}

} // namespace

TEST_CASE("ranked bits: rank and select agree with counting") {
  std::mt19937_64 random(3);
  for (const u64 count : {1U, 63U, 64U, 65U, 511U, 512U, 513U, 5000U}) {
    for (const u64 density : {1U, 2U, 50U, 1000U}) {
      CAPTURE(count);
      CAPTURE(density);
      ranked_bits bits(count);
      ranked_bits of_runs(count);
      std::vector<u64> members;
      for (u64 i = 0; i < count; i++)
        if (random() % density == 0) {
          bits.set(i);
          members.push_back(i);
        }
      bits.seal();
      REQUIRE(bits.set_count() == members.size());
      for (std::size_t first = 0, next = 0; first < members.size(); first = next) {
        for (next = first + 1; next < members.size() && members[next] == members[next - 1] + 1;)
          next++;
        of_runs.set_run(members[first], next - first);
      }
      for (u64 i = 0; i < count; i++)
        REQUIRE(of_runs.test(i) == bits.test(i));
      for (u64 i = 0; i < members.size(); i++) {
        REQUIRE(bits.select(i) == members[i]);
        REQUIRE(bits.rank(members[i]) == i);
        REQUIRE(bits.test(members[i]));
      }
      REQUIRE(bits.rank(count) == members.size());
    }
  }
}

TEST_CASE("qcow2 increment: a sound image that makes the old disk the new one") {
  for (const u64 granularity : {u64{512}, 4 * KiB, 64 * KiB, 4 * MiB}) {
    for (u64 seed = 1; seed <= 6; seed++) {
      CAPTURE(granularity);
      CAPTURE(seed);
      std::mt19937_64 random(seed);
      constexpr u64 length = 5 * MiB + 3 * 512;
      qcow2_bench b({&qcow2_increment_driver_type});
      b.create("d", length, {{"cluster_size", "4K"}});
      root& live = b.open("d");
      b.bench.must(live.write(0, pattern(2 * MiB, seed)));
      const std::vector<std::byte> before = read_all(b.bench, live);
      const bitmap_actions bitmaps{b.bench, b.top()};
      b.bench.must(b.bench.graph().change_bitmaps({bitmaps.addition("mon", granularity)}));
      for (u64 i = 0; i < 4 * seed; i++) {
        const u64 offset = random() % length;
        const u64 part = std::min<u64>(1 + random() % 30000, length - offset);
        if (random() % 3 == 0)
          b.bench.must(live.write_zeroes({offset, part}, write_flag::may_unmap));
        else
          b.bench.must(live.write(offset, pattern(part, random())));
      }
      const std::vector<std::byte> after = read_all(b.bench, live);
      node& n = b.bench.open(increment_spec("img-d", "img-d", "mon"));
      root& r = b.bench.attach(n, may_read);
      memory_disk& copy = b.place("copy", read_all(b.bench, r));
      // Read in other pieces it is the same.
      for (int i = 0; i < 50; i++) {
        const u64 at = random() % copy.bytes.size();
        std::vector<std::byte> part(std::min<u64>(1 + random() % 70000, copy.bytes.size() - at));
        b.bench.must(r.read(at, part));
        REQUIRE(is_same(part, std::span(copy.bytes).subspan(at, part.size())));
      }
      // What its status calls zero is.
      for (u64 at = 0; at < copy.bytes.size();) {
        const block_status s = b.bench.must(r.status_above({at, copy.bytes.size() - at}));
        for (u64 i = at; s.is_zero && i < at + s.length; i++)
          REQUIRE(copy.bytes[i] == std::byte{0});
        at += s.length;
      }
      require_sound(copy);
      CHECK(is_same(read_disk(copy.bytes, before, {}, {}), after));
      b.bench.detach(r);
      b.bench.must(b.bench.graph().close(n));
    }
  }
}

TEST_CASE("qcow2 increment: only what is dirty is in it, and a disk of 64 TiB costs little") {
  increment_content nothing{.disk_length = 64 * TiB,
                            .cluster_bits = 16,
                            .data = sealed(u64{1} << 30),
                            .zero = sealed(u64{1} << 30)};
  const auto empty = increment_layout::create(std::move(nothing));
  REQUIRE(empty.has_value());
  CHECK(empty->length() == (1 + 1 + 1 + 16) * 65536); // header, table, block, L1 table
  increment_content some{.disk_length = 64 * TiB,
                         .cluster_bits = 16,
                         .data = sealed(u64{1} << 30, {5, 6, 900'000'000}),
                         .zero = sealed(u64{1} << 30, {7, 500'000'000})};
  const auto layout = increment_layout::create(std::move(some));
  REQUIRE(layout.has_value());
  CHECK(layout->length() == (19 + 3 + 3) * 65536);
  const increment_layout::place two = layout->find({(19 + 3) * 65536 + 100, 200'000});
  CHECK(two.guest == 5 * 65536 + 100);
  CHECK(two.length == 2 * 65536 - 100);
  CHECK(layout->find({(19 + 3) * 65536, 1}).length == 65536); // no further than is asked for
  CHECK(layout->find({0, 1}).guest == std::nullopt);
  CHECK(layout->find({(19 + 5) * 65536, 1}).guest == 900'000'000ULL * 65536);
  increment_content huge{
      .disk_length = 64 * TiB, .cluster_bits = 12, .data = sealed(1), .zero = sealed(1)};
  const auto refused = increment_layout::create(std::move(huge));
  REQUIRE(!refused.has_value());
  CHECK(refused.error().message().contains("too long for clusters of 4096"));
}

namespace {

task<void> open_one(graph& in, node_spec spec, bool& is_open) {
  (void)co_await in.open(std::move(spec));
  is_open = true;
}

task<void> count_turns(const bool& until, u64& turns) {
  while (!until) {
    co_await sleep_for(std::chrono::nanoseconds(0));
    turns++;
  }
}

} // namespace

TEST_CASE("qcow2 increment: whoever else has something to do gets turns while it is made") {
  qcow2_bench b({&qcow2_increment_driver_type});
  b.create("d", 1 * GiB);
  b.open("d");
  const bitmap_actions bitmaps{b.bench, b.top()};
  b.bench.must(b.bench.graph().change_bitmaps({bitmaps.addition("mon", 4 * KiB)}));
  for (u64 at = 0; at < 1 * GiB; at += 8 * KiB)
    b.top().bitmaps().find("mon")->mark({at, 1});
  bool is_open = false;
  u64 turns = 0;
  std::vector<task<void>> both;
  both.push_back(
      open_one(b.bench.graph(), increment_spec("img-d", "img-d", "mon").build(), is_open));
  both.push_back(count_turns(is_open, turns));
  b.bench.must(when_all(std::move(both)));
  // 131,072 parts of the disk were asked about, and that took many slices.
  CHECK(turns > 5);
}

TEST_CASE("qcow2 increment: a bitmap that cannot be trusted makes none, and says what to do") {
  qcow2_bench b({&qcow2_increment_driver_type});
  memory_disk& disk = b.create("d", 256 << 10, {{"cluster_size", "4K"}});
  image_editor(disk.bytes).add_bitmap("stale");
  {
    image_editor e(disk.bytes);
    const u64 directory = (*e.header().bitmaps())->range.offset;
    e.put(directory + 8, e.number(directory + 8) | 1); // in use
  }
  b.open("d");
  const auto error_of = [&b](const spec_builder& s) {
    const result<node*> opened = b.bench.try_open(s);
    return opened ? std::string() : opened.error().message();
  };
  CHECK(error_of(increment_spec("img-d", "img-d", "stale"))
            .contains("bitmap 'stale' cannot be trusted: "));
  CHECK(error_of(increment_spec("img-d", "img-d", "stale"))
            .contains("; make a full backup, and a new bitmap with it"));
  CHECK(error_of(increment_spec("img-d", "img-d", "none")).contains("has no bitmap 'none'"));
  CHECK(error_of(increment_spec("img-d", "nobody", "x"))
            .contains("'bitmap-node' names 'nobody', which is not open"));
  CHECK(
      error_of(increment_spec("img-d", "img-d", "").set("bitmap", "")).contains("both are needed"));
  const bitmap_actions bitmaps{b.bench, b.top()};
  b.bench.must(b.bench.graph().change_bitmaps({bitmaps.addition("mon")}));
  CHECK(error_of(increment_spec("img-d", "img-d", "mon").set("read-only", false))
            .contains("an increment cannot be written to"));
}
