// SPDX-License-Identifier: MIT
// Threads that write an image by lease while its home enables and disables a bitmap. While it
// records, none of them writes past it, not even one that was held up half-way; and they do again
// when it does not.
#include "tests/unit/lib/bitmap_actions.h"
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

void write_at_random(lease& by, unsigned queue, const std::atomic<bool>& ends,
                     std::atomic<u64>& writes) {
  std::mt19937_64 random(queue);
  while (!ends.load()) {
    const u64 index = random() % blocks;
    visitor v(by, queue);
    if (!v.is_inside())
      continue;
    const auto e = v.find(index * block);
    if (random() % 2 == 0)
      sched_yield(); // a thread may be held up anywhere
    if (!e || !e->may_write)
      continue;
    const auto bytes = pattern(block, random());
    const auto at = static_cast<off_t>(e->offset + index * block - e->guest.offset);
    if (pwrite(by.path(e->path).file.fd, bytes.data(), block, at) == static_cast<ssize_t>(block)) {
      v.count_write({index * block, block}, *e);
      writes.fetch_add(1);
    }
  }
}

// So that threads find extents again, which a change has taken away.
void resolve_all(lease& by) {
  for (u64 i = 0; i < blocks; i++)
    (void)by.resolve(i * block);
}

} // namespace

TEST_CASE("bitmap: threads that write by lease never write past one that records") {
  const scratch_directory dir;
  const std::string name = (dir.path / "image").string();
  graph_bench bench({&qcow2_driver_type, &file_driver_type});
  bench.graph().set_lease_queues(threads + 1);
  make_image_file(bench, name, value(value::map{{"cluster_size", value("4k")}}));
  node& top =
      bench.open(spec_builder("image", qcow2_driver_type)
                     .child("file", spec_builder("", file_driver_type).set("filename", name)));
  root& r = bench.attach(top, may_resize);
  lease& by = *r.shared_lease();
  by.set_may_write(true);
  const bitmap_actions b{bench, top};
  bench.must(r.write(0, pattern(MiB, 1)));
  b.apply(b.addition("b", block, true, false));
  std::atomic<bool> ends{false};
  std::atomic<u64> writes{0};
  u64 before_last = 0;
  {
    std::vector<std::jthread> writers;
    for (unsigned i = 1; i <= threads; i++)
      writers.emplace_back([&, i] { write_at_random(by, i, ends, writes); });
    std::mt19937_64 random(3);
    for (int round = 0; round < 40; round++) {
      const u64 wanted = writes.load() + 5;
      while (writes.load() < wanted) // they do write in between
        resolve_all(by);
      const result<> begun = b.attempt(std::vector{b.change(bitmap_change::kind::enable, "b"),
                                                   b.change(bitmap_change::kind::clear, "b")});
      if (!begun)
        ends.store(true); // or they would never
      REQUIRE(begun);
      before_last = writes.load();
      const auto clean = read_all(bench, r);
      resolve_all(by);
      for (int i = 0; i < 3; i++)
        bench.must(r.write(random() % blocks * block, pattern(block, random())));
      resolve_all(by);
      const auto now = read_all(bench, r);
      CHECK(writes.load() == before_last);
      for (u64 i = 0; i < blocks; i++) {
        const bool differs = std::memcmp(&clean[i * block], &now[i * block], block) != 0;
        if (differs != b.find("b")->is_dirty(i * block))
          FAIL_CHECK("block " << i);
      }
      b.disable("b");
    }
    ends.store(true);
  }
  CHECK(writes.load() >= before_last);
}
