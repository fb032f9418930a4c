// SPDX-License-Identifier: MIT
// The hot path makes no trip to the heap: counted, not assumed. Not under ThreadSanitizer, whose
// runtime has an operator new of its own.
#include "tests/unit/lib/heap_trips.h"

#if __has_feature(thread_sanitizer)
unsigned long bgfs::test::heap_trips() {
  return 0;
}
#else
#include "drivers/format/raw/raw.h"
#include "drivers/protocol/file/file.h"
#include "graph/io/file.h"
#include "tests/unit/lib/graph_bench.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cstdlib>
#include <new>

namespace {
thread_local unsigned long trips = 0;
}
unsigned long bgfs::test::heap_trips() {
  return trips;
}

// Replaced for the whole test program; only the counter differs from the ordinary ones.
void* operator new(std::size_t bytes) {
  trips++;
  if (void* memory = std::malloc(bytes))
    return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct counts {
  unsigned long heap = 0;
  u64 frames = 0;
};

task<void> repeat(root& r, std::span<std::byte> block, bool writes, counts& out) {
  for (int i = 0; i < 64; i++)
    co_await r.read(static_cast<u64>(i) * 4096, block); // warms up
  if (writes)
    for (int i = 0; i < 64; i++)
      co_await r.write(static_cast<u64>(i) * 4096, block);
  const unsigned long heap_before = heap_trips();
  const u64 frames_before = frame_heap_trips();
  for (int i = 0; i < 200; i++) {
    const u64 offset = static_cast<u64>(i % 64) * 4096;
    if (writes) {
      co_await r.write(offset, block);
    } else {
      co_await r.read(offset, block);
    }
  }
  out.heap = heap_trips() - heap_before;
  out.frames = frame_heap_trips() - frames_before;
}

} // namespace

TEST_CASE("reading and writing 4 KiB allocates nothing but pooled frames") {
  const descriptor scratch(memfd_create("scratch", MFD_CLOEXEC));
  REQUIRE(ftruncate(scratch.get(), MiB) == 0);
  graph_bench bench({&raw_driver_type, &file_driver_type});
  node& top = bench.open(
      spec_builder("top", raw_driver_type)
          .child("file", spec_builder("", file_driver_type)
                             .set("filename", fmt::format("/proc/self/fd/{}", scratch.get()))));
  root& r = bench.attach(top);
  std::vector<std::byte> block(4096);
  for (const bool writes : {false, true}) {
    CAPTURE(writes);
    counts seen;
    bench.must(repeat(r, block, writes, seen));
    CHECK(seen.heap == 0);
#if !__has_feature(address_sanitizer)
    CHECK(seen.frames == 0); // under sanitizers every frame is a trip, so that misuse is seen
#endif
  }
}
#endif // thread sanitizer
