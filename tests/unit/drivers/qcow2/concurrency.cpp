// SPDX-License-Identifier: MIT
// Many requests at once, in an order drawn from a seed. Every task owns some bytes and knows what
// they must be; clusters, tables and caches are shared by all.
#include "graph/io/sleep.h"
#include "graph/io/spawn.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/repetitions.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 sector = 512;

struct shared_disk {
  root& way;
  std::span<std::byte> model;
  u64 cluster;
  unsigned writers;
  u64 mismatches = 0;
};

// Owns every sector whose number is `self` modulo the writers, in clusters 0, 1, 2 of each four.
task<void> write_sectors(shared_disk& d, unsigned self, u64 seed) {
  std::mt19937_64 random(seed * 1000 + self);
  const u64 sectors = d.model.size() / sector;
  for (int i = 0; i < 25; i++) {
    u64 at = random() % (sectors / d.writers) * d.writers + self;
    if (at >= sectors || at * sector / d.cluster % 4 == 3)
      continue;
    const byte_range r{at * sector + random() % 100, 1 + random() % 400};
    const auto mine = d.model.subspan(r.offset, r.length);
    if (random() % 6 == 0) { // a part of a cluster, beside somebody's write in flight
      co_await d.way.write_zeroes(r, write_flag::may_unmap);
      std::ranges::fill(mine, std::byte{0});
    } else if (random() % 3 == 0) {
      std::vector<std::byte> seen(r.length);
      co_await d.way.read(r.offset, seen);
      d.mismatches += !std::ranges::equal(seen, mine);
    } else {
      const auto bytes = pattern(r.length, random());
      co_await d.way.write(r.offset, bytes);
      std::ranges::copy(bytes, mine.begin());
    }
  }
}

// Owns some of the clusters whose number is 3 modulo 4, whole: discards and zeroes them as well.
task<void> churn_clusters(shared_disk& d, unsigned self, u64 seed) {
  std::mt19937_64 random(seed * 2000 + self);
  const u64 clusters = d.model.size() / d.cluster;
  for (int i = 0; i < 25; i++) {
    const u64 c = (random() % (clusters / 4) / d.writers * d.writers + self) * 4 + 3;
    if (c >= clusters)
      continue;
    const byte_range r{c * d.cluster, d.cluster};
    const auto mine = d.model.subspan(r.offset, r.length);
    switch (random() % 5) {
    case 4: {
      const auto bytes = compressible_pattern(r.length, d.cluster, random());
      co_await d.way.write(r.offset, bytes, write_flag::compressed);
      std::ranges::copy(bytes, mine.begin());
      break;
    }
    case 0: {
      co_await d.way.discard(r);
      std::ranges::fill(mine, std::byte{0});
      break;
    }
    case 1: {
      co_await d.way.write_zeroes(r, random() % 2 == 0 ? write_flag::may_unmap : 0);
      std::ranges::fill(mine, std::byte{0});
      break;
    }
    case 2: {
      const auto bytes = pattern(r.length, random());
      co_await d.way.write(r.offset, bytes);
      std::ranges::copy(bytes, mine.begin());
      break;
    }
    default: {
      std::vector<std::byte> seen(r.length);
      co_await d.way.read(r.offset, seen);
      d.mismatches += !std::ranges::equal(seen, mine);
    }
    }
  }
}

task<void> flush_often(shared_disk& d, u64 seed) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < 30; i++) {
    for (u64 n = random() % 20; n > 0; n--)
      co_await sleep_for(std::chrono::nanoseconds(0));
    co_await d.way.flush();
  }
}

task<void> run_all(loop& home, shared_disk& d, u64 seed) {
  task_group group(home);
  for (unsigned i = 0; i < d.writers; i++) {
    group.spawn(write_sectors(d, i, seed));
    group.spawn(churn_clusters(d, i, seed));
  }
  group.spawn(flush_often(d, seed));
  co_await group.join();
}

void run_shape(const option_list& create, const option_list& open, u64 cluster, u64 seed,
               u64 backing_length = 0) {
  qcow2_bench b({.shuffle_seed = seed});
  const u64 length = 64 * cluster;
  memory_disk& disk = b.create("d", length, create);
  std::vector<std::byte> backing = pattern(backing_length, seed);
  if (backing_length != 0)
    b.place("base", backing);
  std::vector<std::byte> model = backing;
  model.resize(length);
  shared_disk d{b.open("d", open, backing_length != 0 ? "base" : ""), model, cluster, 16};
  for (int round = 0; round < 3; round++)
    b.bench.must(run_all(b.bench.home(), d, seed * 10 + static_cast<u64>(round)));
  CHECK(d.mismatches == 0);
  CHECK(read_all(b.bench, d.way) == model);
  b.close();
  require_sound(disk);
  CHECK(read_disk(disk.bytes, backing) == model);
}

// Writes that are interrupted at any time; each covers its own clusters.
task<void> write_whole(root& way, u64 offset, std::span<const std::byte> bytes) {
  co_await way.write(offset, bytes);
}

task<void> interrupt_some(loop& home, root& way, std::span<const std::byte> bytes, u64 seed) {
  std::mt19937_64 random(seed);
  for (u64 i = 0; i < 20; i++) {
    task_group group(home);
    for (u64 n = 0; n < 4; n++)
      group.spawn(write_whole(way, (i * 4 + n) * 3000 % 200000, bytes));
    for (u64 n = random() % 40; n > 0; n--)
      co_await sleep_for(std::chrono::nanoseconds(0));
    group.request_stop();
    (void)co_await as_result(group.join());
  }
}

} // namespace

TEST_CASE("qcow2: interrupted writes leave nothing behind that others wait for or that leaks") {
  for (u64 seed = 1; seed <= repetitions(10); seed++) {
    CAPTURE(seed);
    qcow2_bench b({.shuffle_seed = seed});
    memory_disk& disk = b.create("d", 256 << 10, {{"cluster_size", "4K"}});
    root& way = b.open("d");
    const auto bytes = pattern(3000, seed);
    b.bench.must(interrupt_some(b.bench.home(), way, bytes, seed));
    for (u64 at = 0; at < 200000; at += 3000)
      b.bench.must(way.write(at, bytes));
    std::vector<std::byte> seen(3000);
    b.bench.must(way.read(30000, seen));
    CHECK(seen == bytes);
    b.close();
    require_sound(disk);
  }
}

TEST_CASE("qcow2: concurrent requests in shuffled order keep their bytes apart") {
  for (u64 seed = 1; seed <= repetitions(12); seed++) {
    CAPTURE(seed);
    run_shape({{"cluster_size", "4K"}}, {}, 4096, seed);
    run_shape({{"cluster_size", "4K"}}, {}, 4096, seed, 150000);
    run_shape({{"cluster_size", "512"}, {"refcount_bits", "64"}}, {}, 512, seed);
    run_shape({{"cluster_size", "512"}}, {{"l2-cache-size", "1"}, {"refcount-cache-size", "1"}},
              512, seed, 20000);
    run_shape({{"cluster_size", "16K"}, {"extended_l2", "on"}}, {}, 16384, seed, 300000);
    run_shape({{"cluster_size", "4K"}},
              {{"discard-no-unref", "on"}, {"pass-discard-request", "on"}}, 4096, seed);
  }
}
