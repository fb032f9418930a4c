// SPDX-License-Identifier: MIT
// Threads that read and write a qcow2 image by lease, while its home discards, zeroes, writes,
// flushes, resizes and drains it. Every block says which one it is: space that is used again too
// early, or an extent that is believed too long, shows up as somebody else's block.
#include "tests/unit/lib/image_file.h"
#include "tests/unit/lib/scratch_directory.h"
#include "tests/unit/lib/visitor.h"

#include <random>
#include <sched.h>
#include <thread>
#include <unistd.h>

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 block = 4 * KiB;
constexpr u64 blocks = MiB / block;
constexpr unsigned threads = 4;

std::vector<std::byte> stamped(u64 index) {
  std::vector<std::byte> bytes(block);
  for (u64 at = 0; at < block; at += sizeof index)
    std::memcpy(bytes.data() + at, &index, sizeof index);
  return bytes;
}

// Each word is the block's number plus one, or zero where it was never written or was taken away.
bool is_own(std::span<const std::byte> bytes, u64 index) {
  for (u64 at = 0; at < bytes.size(); at += sizeof index) {
    u64 found = 0;
    std::memcpy(&found, bytes.data() + at, sizeof found);
    if (found != 0 && found != index + 1)
      return false;
  }
  return true;
}

// What the threads have come to.
struct tally {
  std::atomic<u64> reads{0}, writes{0}, refused{0}, strangers{0};
};

void visit_at_random(lease& by, unsigned queue, const std::atomic<bool>& ends, tally& seen) {
  std::mt19937_64 random(queue);
  std::vector<std::byte> bytes(block);
  while (!ends.load()) {
    const u64 index = random() % blocks;
    visitor v(by, queue);
    if (!v.is_inside()) {
      seen.refused.fetch_add(1);
      continue;
    }
    const auto e = v.find(index * block);
    if (random() % 4 == 0)
      sched_yield(); // a thread may be held up anywhere
    if (!e || e->is_zero)
      continue;
    const int fd = by.path(e->path).file.fd;
    const auto at = static_cast<off_t>(e->offset + index * block - e->guest.offset);
    if (e->may_write && random() % 2 == 0) {
      const auto own = stamped(index + 1);
      if (pwrite(fd, own.data(), block, at) == static_cast<ssize_t>(block)) {
        v.count_write({index * block, block}, *e);
        seen.writes.fetch_add(1);
      }
      continue;
    }
    const ssize_t count = pread(fd, bytes.data(), block, at);
    if (count > 0 && !is_own(std::span(bytes).first(static_cast<std::size_t>(count)), index))
      seen.strangers.fetch_add(1);
    seen.reads.fetch_add(1);
  }
}

task<void> nothing(graph::drained&) {
  co_return;
}

void edit_at_random(graph_bench& bench, node& top, root& r, std::mt19937_64& random) {
  const u64 index = random() % blocks;
  const byte_range range{index * block, std::min((1 + random() % 8) * block, MiB - index * block)};
  switch (random() % 16) {
  case 0:
  case 1:
  case 2:
    bench.must(r.discard(range));
    return;
  case 3:
    bench.must(r.write_zeroes(range, write_flag::may_unmap));
    return;
  case 4:
    bench.must(r.flush());
    return;
  case 5:
    bench.must(with(bench.graph().drain(top), nothing));
    return;
  case 6:
    bench.must(r.write(index * block, stamped(index + 1), write_flag::serialising));
    return;
  case 7:
    bench.must(r.truncate(MiB / 2));
    bench.must(r.truncate(MiB));
    return;
  default:
    bench.must(r.write(index * block, stamped(index + 1)));
    (void)r.shared_lease()->resolve(index * block);
  }
}

} // namespace

TEST_CASE("threads that read and write by lease never meet a stranger's block") {
  const scratch_directory dir;
  const std::string name = (dir.path / "image").string();
  graph_bench bench({&qcow2_driver_type, &file_driver_type});
  bench.graph().set_lease_queues(threads + 1);
  make_image_file(bench, name, value(value::map{{"cluster_size", value("4k")}}));
  node& top =
      bench.open(spec_builder("image", qcow2_driver_type)
                     .set("discard", "unmap")
                     .child("file", spec_builder("", file_driver_type).set("filename", name)));
  root& r = bench.attach(top, may_resize);
  lease& by = *r.shared_lease();
  by.set_may_write(true);
  std::atomic<bool> ends{false};
  tally seen;
  {
    std::vector<std::jthread> visitors;
    for (unsigned i = 1; i <= threads; i++)
      visitors.emplace_back([&, i] { visit_at_random(by, i, ends, seen); });
    std::mt19937_64 random(11);
    for (int i = 0; i < 3000 || seen.reads.load() < 500 || seen.writes.load() < 200; i++)
      edit_at_random(bench, top, r, random);
    ends.store(true);
  }
  CHECK(seen.strangers.load() == 0);
  CHECK(seen.refused.load() > 0);
  bench.must(by.turn());
  CHECK(by.is_empty());
  CHECK(top.statistics().of(operation::write).count >= seen.writes.load());
  const auto whole = read_all(bench, r);
  for (u64 index = 0; index < blocks; index++)
    CHECK(is_own(std::span(whole).subspan(index * block, block), index));
}
