// SPDX-License-Identifier: MIT
// Compressed clusters are inflated once for small reads, and never shown when they are freed.
#include "drivers/format/qcow2/image.h"
#include "graph/io/sleep.h"
#include "graph/io/spawn.h"
#include "graph/model/lease.h"
#include "tests/unit/drivers/qcow2/deflate.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/background.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 cluster = 4096;

std::vector<std::byte> text(u64 seed) {
  std::vector<std::byte> made(cluster);
  for (std::size_t i = 0; i < made.size(); i++)
    made[i] = static_cast<std::byte>('a' + (i / 64 + seed) % 20);
  return made;
}

std::vector<std::byte> sub(const std::vector<std::byte>& bytes, u64 at, u64 length) {
  const auto from = bytes.begin() + static_cast<i64>(at);
  return {from, from + static_cast<i64>(length)};
}

// Guest clusters 0 to 31 are compressed; cluster i holds text(i).
memory_disk& compressed_image(qcow2_bench& b) {
  memory_disk& disk = b.create("d", 32 * cluster, {{"cluster_size", "4K"}});
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(cluster, 1))); // so that there is a table
  b.close();
  image_editor e(disk.bytes);
  for (u64 i = 0; i < 32; i++)
    e.add_compressed(i * cluster, deflate_raw(text(i)));
  return disk;
}

qcow2::image& image_of(qcow2_bench& b) {
  return dynamic_cast<qcow2::image&>(b.top().instance());
}

task<void> read_into(root& way, u64 offset, std::span<std::byte> bytes) {
  co_await way.read(offset, bytes);
}

task<void> read_sectors(loop& home, root& way, std::span<std::byte> bytes) {
  task_group group(home);
  for (u64 at = 0; at < bytes.size(); at += 512)
    group.spawn(read_into(way, at, bytes.subspan(at, 512)));
  co_await group.join();
}

task<void> let_others_run() {
  for (int i = 0; i < 20; i++)
    co_await sleep_for(std::chrono::nanoseconds(0));
}

// A read whose compressed bytes are late; meanwhile the cluster is overwritten, and read again.
task<void> free_under_a_read(loop& home, root& way, memory_disk& disk, std::span<std::byte> before,
                             std::span<std::byte> after) {
  event gate;
  bool is_held = false; // the compressed bytes, and no tables
  disk.hold = [&](std::string_view operation, byte_range) -> event* {
    return operation == "read" && !std::exchange(is_held, true) ? &gate : nullptr;
  };
  task_group group(home);
  group.spawn(read_into(way, 512, before.first(512)));
  co_await let_others_run(); // the run queue is shuffled: the first is to be the first
  group.spawn(read_into(way, 1024, before.subspan(512, 512))); // waits for it
  co_await let_others_run();
  co_await way.write(0, pattern(cluster, 77)); // the whole cluster: nothing is copied
  gate.set();
  co_await group.join();
  disk.hold = nullptr;
  co_await way.read(0, after);
}

// A part of a cluster written, or all of it zeroed, and reads of other bytes near to it.
void change_beside_reads(graph_bench& bench, root& way, std::vector<std::byte>& model,
                         std::mt19937_64& random) {
  byte_range changed{random() % (model.size() - 600), 1 + random() % 600};
  auto bytes = pattern(changed.length, random());
  const bool is_zeroed = random() % 6 == 0;
  if (is_zeroed) {
    changed = byte_range{changed.offset, 1}.widened_to(cluster);
    bytes.assign(cluster, std::byte{0});
  }
  struct part {
    byte_range range;
    std::vector<std::byte> seen;
  };
  std::vector<part> parts;
  while (parts.size() < 8) {
    const u64 before = changed.offset - std::min<u64>(changed.offset, 2 * cluster);
    const u64 near = before + random() % (4 * cluster);
    const byte_range range{std::min<u64>(near, model.size() - 300), 1 + random() % 300};
    if (!range.overlaps(changed))
      parts.push_back({range, std::vector<std::byte>(range.length)});
  }
  background tasks(bench);
  const std::size_t change_at = random() % parts.size();
  for (std::size_t i = 0; i < parts.size(); i++) {
    if (i == change_at && is_zeroed)
      tasks.spawn(way.write_zeroes(changed, write_flag::may_unmap));
    if (i == change_at && !is_zeroed)
      tasks.spawn(way.write(changed.offset, bytes));
    tasks.spawn(read_into(way, parts[i].range.offset, parts[i].seen));
  }
  REQUIRE(tasks.finish().has_value());
  for (const part& p : parts)
    CHECK(p.seen == sub(model, p.range.offset, p.range.length));
  std::ranges::copy(bytes, model.begin() + static_cast<i64>(changed.offset));
}

} // namespace

TEST_CASE("qcow2 compressed: small reads inflate a cluster once, also when they come together") {
  qcow2_bench b;
  memory_disk& disk = compressed_image(b);
  root& way = b.open("d");
  std::vector<std::byte> bytes(cluster);
  b.bench.must(way.read(4 * cluster, std::span(bytes).first(100))); // loads the table
  u64 reads = 0;
  disk.fault = [&](std::string_view operation, byte_range) -> std::optional<error> {
    reads += operation == "read";
    return std::nullopt;
  };
  b.bench.must(read_sectors(b.bench.home(), way, bytes));
  CHECK(bytes == text(0));
  CHECK(reads == 1);
  for (u64 at = 0; at < cluster; at += 100) {
    std::vector<std::byte> some(std::min<u64>(100, cluster - at));
    b.bench.must(way.read(at, some));
    CHECK(std::ranges::equal(some, sub(text(0), at, some.size())));
  }
  CHECK(reads == 1);
  b.close();
}

TEST_CASE("qcow2 compressed: no more clusters are kept than the limit says") {
  qcow2_bench b;
  memory_disk& disk = compressed_image(b);
  root& way = b.open("d");
  std::vector<std::byte> some(100);
  for (u64 round = 0; round < 2; round++) {
    for (u64 i = 0; i < 32; i++) {
      b.bench.must(way.read(i * cluster + 50, some));
      CHECK(std::ranges::equal(some, sub(text(i), 50, 100)));
      CHECK(image_of(b).inflated_clusters() <= qcow2::inflated_cache::kept_clusters_max);
    }
  }
  // Nor when all of them are inflated side by side.
  std::vector<std::byte> all(32 * 100);
  event gate;
  disk.hold = [&](std::string_view, byte_range) { return &gate; };
  background reads(b.bench);
  for (u64 i = 0; i < 32; i++)
    reads.start(read_into(way, i * cluster + 50, std::span(all).subspan(i * 100, 100)));
  CHECK(image_of(b).inflated_clusters() >= 32 - qcow2::inflated_cache::kept_clusters_max);
  gate.set();
  CHECK(reads.finish().has_value());
  disk.hold = nullptr;
  for (u64 i = 0; i < 32; i++)
    CHECK(std::ranges::equal(std::span(all).subspan(i * 100, 100), sub(text(i), 50, 100)));
  CHECK(image_of(b).inflated_clusters() == qcow2::inflated_cache::kept_clusters_max);
  b.close();
}

TEST_CASE("qcow2 compressed: long clusters are kept one by one") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 4 << 21, {{"cluster_size", "2M"}});
  root& way = b.open("d");
  b.bench.must(way.write(3 << 21, pattern(100, 1)));
  b.close();
  image_editor e(disk.bytes);
  for (u64 i = 0; i < 3; i++)
    e.add_compressed(i << 21, deflate_raw(std::vector<std::byte>(1 << 21, std::byte(i + 1))));
  root& again = b.open("d");
  std::vector<std::byte> some(100);
  for (u64 i = 0; i < 3; i++) {
    b.bench.must(again.read((i << 21) + 50, some));
    CHECK(some == std::vector<std::byte>(100, std::byte(i + 1)));
    CHECK(image_of(b).inflated_clusters() == 1);
  }
  b.close();
}

TEST_CASE("qcow2 compressed: what was inflated is given back to the loop, and with a reopen") {
  qcow2_bench b;
  compressed_image(b);
  root& way = b.open("d");
  std::vector<std::byte> some(100);
  const auto read_one = [&] {
    b.bench.must(way.read(50, some));
    CHECK(std::ranges::equal(some, sub(text(0), 50, 100)));
    CHECK(image_of(b).inflated_clusters() == 1);
  };
  read_one();
  image_of(b).detach_loop();
  CHECK(image_of(b).inflated_clusters() == 0);
  image_of(b).attach_loop(b.bench.home());
  read_one();
  const node_spec spec = qcow2_bench::image_spec("d", {{"read-only", "on"}}).build();
  b.bench.must(image_of(b).prepare_reopen(spec.given, spec.generic));
  image_of(b).commit_reopen();
  CHECK(image_of(b).inflated_clusters() == 0);
  b.bench.must(image_of(b).finish_reopen());
  read_one();
  b.bench.must(image_of(b).close());
  CHECK(image_of(b).inflated_clusters() == 0);
  b.close();
}

TEST_CASE("qcow2 compressed: no lease leads to a compressed cluster, only to what replaces it") {
  qcow2_bench b;
  b.bench.graph().set_lease_queues(2);
  compressed_image(b).is_direct = true;
  root& way = b.open("d");
  lease& by = *way.shared_lease();
  by.set_may_write(true);
  std::vector<std::byte> seen(cluster);
  b.bench.must(way.read(0, std::span(seen).first(100)));
  CHECK(!by.resolve(0));
  CHECK(!by.find(0));
  b.bench.must(way.write(300, pattern(100, 5)));
  const auto now = by.resolve(0);
  REQUIRE(now);
  CHECK(now->may_write);
  auto model = text(0);
  std::ranges::copy(pattern(100, 5), model.begin() + 300);
  const auto& bytes = memory_disks()["d"]->bytes;
  CHECK(std::ranges::equal(std::span(bytes).subspan(now->offset, cluster), model));
  b.bench.must(way.discard({0, cluster}));
  CHECK(!by.find(0));
  b.close();
}

TEST_CASE("qcow2 compressed: reads beside changes see what a plain array would") {
  for (u64 seed = 1; seed <= 6; seed++) {
    CAPTURE(seed);
    qcow2_bench b({.shuffle_seed = seed});
    memory_disk& disk = compressed_image(b);
    root& way = b.open("d");
    std::mt19937_64 random(seed);
    std::vector<std::byte> model;
    for (u64 i = 0; i < 32; i++)
      std::ranges::copy(text(i), std::back_inserter(model));
    for (int round = 0; round < 60; round++)
      change_beside_reads(b.bench, way, model, random);
    CHECK(read_all(b.bench, way) == model);
    b.close();
    require_sound(disk, true);
  }
}

TEST_CASE("qcow2 compressed: Q9: freed clusters are forgotten, by whatever frees them") {
  using change = std::function<task<void>(root&)>;
  const change changes[] = {
      [](root& way) { return way.discard({0, cluster}); },
      [](root& way) { return way.write_zeroes({0, cluster}, write_flag::may_unmap); },
      [](root& way) { return way.truncate(0); },
  };
  for (const change& apply : changes) {
    qcow2_bench b;
    memory_disk& disk = compressed_image(b);
    root& way = b.open("d");
    std::vector<std::byte> some(100);
    b.bench.must(way.read(50, some));
    CHECK(image_of(b).inflated_clusters() == 1);
    b.bench.must(apply(way));
    CHECK(image_of(b).inflated_clusters() == 0);
    b.close();
    require_sound(disk, true);
  }
  qcow2_bench b;
  compressed_image(b);
  root& way = b.open("d");
  std::vector<std::byte> model = text(0);
  std::vector<std::byte> seen(cluster);
  b.bench.must(way.read(0, std::span(seen).first(10)));
  const auto bytes = pattern(100, 5);
  b.bench.must(way.write(300, bytes)); // copies the rest of the cluster
  std::ranges::copy(bytes, model.begin() + 300);
  CHECK(image_of(b).inflated_clusters() == 0);
  b.bench.must(way.read(0, seen));
  CHECK(seen == model);
  b.close();
}

TEST_CASE("qcow2 compressed: Q9: a cluster freed while it is inflated is shown to nobody later") {
  for (u64 seed = 1; seed <= 5; seed++) {
    qcow2_bench b({.shuffle_seed = seed});
    memory_disk& disk = compressed_image(b);
    root& way = b.open("d");
    std::vector<std::byte> before(1024), after(cluster), some(100);
    b.bench.must(way.read(4 * cluster, some)); // loads the table
    b.bench.must(free_under_a_read(b.bench.home(), way, disk, before, after));
    // The first read saw the old bytes; the second looked again and saw the new ones.
    CHECK(std::ranges::equal(std::span(before).first(512), sub(text(0), 512, 512)));
    CHECK(std::ranges::equal(std::span(before).last(512), sub(pattern(cluster, 77), 1024, 512)));
    CHECK(after == pattern(cluster, 77));
    CHECK(image_of(b).inflated_clusters() == 1); // the one of the read before
    b.close();
    require_sound(disk, true);
  }
}

TEST_CASE("qcow2 compressed: a failed read fails those who waited on their own account") {
  qcow2_bench b;
  memory_disk& disk = compressed_image(b);
  root& way = b.open("d");
  std::vector<std::byte> bytes(cluster);
  b.bench.must(way.read(4 * cluster, std::span(bytes).first(100)));
  u64 reads = 0;
  disk.fault = [&](std::string_view operation, byte_range) -> std::optional<error> {
    if (operation != "read" || ++reads > 1)
      return std::nullopt;
    return error::from_errno(EIO, "the test says so");
  };
  CHECK_FALSE(b.bench.run(read_sectors(b.bench.home(), way, bytes)).has_value());
  CHECK(reads == 2); // one fails, one inflates for the other seven
  b.bench.must(way.read(0, bytes));
  CHECK(bytes == text(0));
  b.close();
}
