// SPDX-License-Identifier: MIT
// Where bytes live: runs, without I/O once cached, without allocations; and the memory that holds
// the cached tables.
#include "drivers/format/qcow2/image.h"
#include "graph/io/sleep.h"
#include "tests/unit/drivers/qcow2/image_editor.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/background.h"
#include "tests/unit/lib/heap_trips.h"

#include <sys/mman.h>

using namespace bgfs;
using namespace bgfs::test;

namespace {

task<void> read_often(root& way, std::span<std::byte> block, unsigned long& trips) {
  for (u64 i = 0; i < 64; i++)
    co_await way.read(i * 4096, block);
  const unsigned long before = heap_trips();
  for (u64 i = 0; i < 64; i++)
    co_await way.read(i * 4096, block);
  trips = heap_trips() - before;
}

task<extent> map_once(mappable& face, byte_range range) {
  extent e = co_await face.map(range);
  co_return e;
}

} // namespace

TEST_CASE("qcow2 map: contiguous clusters are one run; kinds and offsets are told apart") {
  qcow2_bench b;
  b.create("d", 16 << 20, {{"cluster_size", "64K"}});
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(1 << 20, 1)));
  b.bench.must(way.write_zeroes({2 << 20, 1 << 20}));
  b.bench.must(way.write(3 << 20, pattern(65536, 1)));
  b.bench.must(way.write_zeroes({3 << 20, 65536})); // keeps its cluster
  auto& face = dynamic_cast<mappable&>(b.top().instance());
  const auto data = face.try_map({4096, 16 << 20});
  REQUIRE(data.has_value());
  CHECK(data->kind == extent_kind::data);
  CHECK(data->length == (1 << 20) - 4096);
  CHECK(data->where == b.top().child("file"));
  const auto hole = face.try_map({1 << 20, 16 << 20});
  REQUIRE(hole.has_value());
  CHECK(hole->kind == extent_kind::unallocated);
  CHECK(hole->length == 2 << 20); // zero writes leave what reads as zeroes alone
  const auto zero = face.try_map({3 << 20, 16 << 20});
  REQUIRE(zero.has_value());
  CHECK(zero->kind == extent_kind::zero);
  CHECK(zero->where != nullptr);
  CHECK(zero->length == 65536);
  CHECK(face.try_map({16 << 20, 1})->kind == extent_kind::end);
}

TEST_CASE("qcow2 map: an L2 slice is read once, and after that nothing is") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 16 << 20, {{"cluster_size", "64K"}});
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(1 << 20, 1)));
  b.close();
  b.open("d");
  auto& face = dynamic_cast<mappable&>(b.top().instance());
  CHECK(!face.try_map({0, 4096}).has_value());
  const extent first = b.bench.must(map_once(face, {0, 4096}));
  CHECK(first.kind == extent_kind::data);
  const u64 operations = disk.operations;
  const auto again = face.try_map({8192, 4096});
  REQUIRE(again.has_value());
  CHECK(again->offset == first.offset + 8192);
  CHECK(disk.operations == operations);
}

TEST_CASE("qcow2 map: a cached read goes to the heap for nothing") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 16 << 20, {});
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(1 << 20, 1)));
  disk.yields = false; // the test disk's own turns allocate
  std::vector<std::byte> block(4096);
  unsigned long trips = 0;
  b.bench.must(read_often(way, block, trips));
  CHECK(trips == 0);
}

TEST_CASE("qcow2 map: data cut off by the end of the file reads as zeroes") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "64K"}});
  root& way = b.open("d");
  const auto bytes = pattern(65536, 1);
  b.bench.must(way.write(0, bytes));
  b.close();
  disk.bytes.resize(disk.bytes.size() - 60000);
  root& again = b.open("d", {{"read-only", "on"}}, "", may_read);
  auto model = bytes;
  std::fill(model.end() - 60000, model.end(), std::byte{0});
  std::vector<std::byte> seen(65536);
  b.bench.must(again.read(0, seen));
  CHECK(seen == model);
}

TEST_CASE("qcow2 map: parts of a read that lie apart are read side by side, each once") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 4 << 20, {{"cluster_size", "64K"}});
  const auto base = pattern(1 << 20, 9);
  b.place("base", base);
  root& way = b.open("d", {}, "base");
  std::vector<std::byte> model(4 << 20);
  std::ranges::copy(base, model.begin());
  for (u64 i = 64; i-- > 16;) { // the last first, so that no cluster follows its neighbour
    const auto bytes = pattern(65536, i);
    b.bench.must(way.write(i << 16, bytes));
    std::ranges::copy(bytes, model.begin() + static_cast<i64>(i << 16));
  }
  b.bench.must(way.write_zeroes({20 << 16, 65536}));
  std::fill_n(model.begin() + (20 << 16), 65536, std::byte{0});
  event gate;
  u64 held = 0;
  const auto hold = [&](std::string_view operation, byte_range) -> event* {
    held += operation == "read";
    return &gate;
  };
  disk.hold = hold;
  memory_disks()["base"]->hold = hold;
  // 17 pieces of our own and one of the base, with zeroes between.
  std::vector<std::byte> seen(22 << 16);
  background reads(b.bench);
  reads.start(way.read(12 << 16, seen));
  CHECK(held == 16); // the limit
  gate.set();
  CHECK(reads.finish().has_value());
  CHECK(held == 18);
  CHECK(std::ranges::equal(seen, std::span(model).subspan(12 << 16, seen.size())));
  held = 0;
  disk.fault = [&](std::string_view operation, byte_range) -> std::optional<error> {
    if (operation != "read" || held != 3)
      return std::nullopt;
    return error::from_errno(EIO, "the test says so");
  };
  CHECK_FALSE(b.bench.run(way.read(16 << 16, seen)).has_value());
  disk.fault = nullptr;
  disk.hold = nullptr;
  memory_disks()["base"]->hold = nullptr;
  b.close();
}

TEST_CASE("qcow2 cache: dirty pages side by side are written together, and fail together") {
  for (u64 failing = 1; failing <= 3; failing++) { // the refcount block, or either table
    CAPTURE(failing);
    qcow2_bench b;
    memory_disk& disk = b.create("d", 4 << 20, {{"cluster_size", "4K"}});
    // 64 clusters a page, 8 pages a table: two tables of which every page is dirty.
    root& way = b.open("d", {{"l2-cache-entry-size", "512"}});
    const auto bytes = pattern(100, 1);
    std::vector<std::byte> model(4 << 20);
    for (u64 at = 0; at < model.size(); at += u64{64} * 4096) {
      b.bench.must(way.write(at, bytes));
      std::ranges::copy(bytes, model.begin() + static_cast<i64>(at));
    }
    u64 writes = 0;
    disk.fault = [&](std::string_view operation, byte_range) -> std::optional<error> {
      if (operation != "write" || ++writes != failing)
        return std::nullopt;
      return error::from_errno(EIO, "the test says so");
    };
    CHECK_FALSE(b.bench.run(way.flush()).has_value());
    CHECK(writes == (failing == 1 ? 1 : 3)); // R1: without refcounts no table
    disk.fault = nullptr;
    CHECK(check_image(disk.bytes).errors.empty());
    disk.keeps_log = true;
    b.bench.must(way.flush());
    disk.keeps_log = false;
    // What has landed is not written again; what has not is, all of it.
    const auto again = std::ranges::count(disk.log, memory_event::kind::write, &memory_event::what);
    CHECK(again == (failing == 1 ? 3 : 1));
    require_sound(disk);
    CHECK(read_disk(disk.bytes) == model);
    b.close();
  }
}

TEST_CASE("qcow2 cache: only so many writes of tables are under way at once") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 2 << 20, {{"cluster_size", "512"}});
  root& way = b.open("d");
  for (u64 at = 0; at < 2 << 20; at += u64{64} * 512) // a table each, and data between them
    b.bench.must(way.write(at, pattern(100, 1)));
  event gate;
  u64 held = 0;
  bool is_flushed = false; // what comes after the refcounts is tables
  disk.hold = [&](std::string_view operation, byte_range) -> event* {
    is_flushed = is_flushed || operation == "flush";
    if (operation != "write" || !is_flushed)
      return nullptr;
    held++;
    return &gate;
  };
  background tasks(b.bench);
  tasks.start(way.flush());
  tasks.settle();
  CHECK(held == 8);
  gate.set();
  CHECK(tasks.finish().has_value());
  CHECK(held == 64);
  disk.hold = nullptr;
  b.close();
  require_sound(disk);
}

TEST_CASE("qcow2 cache: pages know what they are, without pointers, and dirty ones are marked") {
  using namespace qcow2;
  auto region = *metadata_region::create({page_plan{4096, 3}, page_plan{4096, 2}});
  table_cache cache(*region, table_kind::l2_slice);
  for (u64 i = 1; i <= 3; i++)
    cache.bind(*cache.claim(), host_offset(i * 4096), page_state::clean);
  cache.set_dirty(*cache.find(host_offset(4096)));
  CHECK(cache.dirty_count() == 1);
  // The clock passes the dirty page by.
  const u32 evicted = *cache.claim();
  CHECK(evicted != *cache.find(host_offset(4096)));
  cache.bind(evicted, host_offset(9 * 4096), page_state::clean);
  CHECK(cache.pages_in_use() == 3);
  // Mapped a second time, elsewhere, it says the same: what a successor would find.
  void* other = mmap(nullptr, region->length(), PROT_READ, MAP_SHARED, region->fd(), 0);
  REQUIRE(other != MAP_FAILED);
  const auto bytes = std::span(static_cast<const std::byte*>(other), region->length());
  const auto header = load<region_header>(bytes);
  CHECK(header.magic == metadata_region::magic);
  unsigned dirty = 0;
  for (u64 i = 0; i < header.caches[0].used_count; i++) {
    const auto d =
        load<page_descriptor>(bytes, header.caches[0].descriptors_at + i * sizeof(page_descriptor));
    dirty += d.state == page_state::dirty && d.host_offset == 4096;
  }
  CHECK(dirty == 1);
  munmap(other, region->length());
  // Freed clusters take their pages along (Q3).
  cache.forget({4096, 4096});
  CHECK(!cache.find(host_offset(4096)).has_value());
  CHECK(cache.dirty_count() == 0);
}

TEST_CASE("qcow2 cache: only what was not used since the last round is dropped") {
  using namespace qcow2;
  auto region = *metadata_region::create({page_plan{4096, 4}, page_plan{4096, 2}});
  table_cache cache(*region, table_kind::l2_slice);
  for (u64 i = 1; i <= 3; i++)
    cache.bind(*cache.claim(), host_offset(i * 4096), page_state::clean);
  cache.set_dirty(*cache.find(host_offset(3 * 4096)));
  cache.drop_unused();
  CHECK(cache.pages_in_use() == 3); // all were used since
  cache.touch(*cache.find(host_offset(4096)));
  cache.drop_unused();
  CHECK(cache.find(host_offset(4096)).has_value());
  CHECK(!cache.find(host_offset(2 * 4096)).has_value());
  CHECK(cache.find(host_offset(3 * 4096)).has_value()); // dirty
}

TEST_CASE("qcow2 cache: the interval cleans while the image is idle") {
  qcow2_bench b;
  memory_disk& disk = b.create("d", 16 << 20, {});
  root& way = b.open("d");
  b.bench.must(way.write(0, pattern(65536, 1)));
  b.close();
  root& again = b.open("d", {{"cache-clean-interval", "1ms"}});
  std::vector<std::byte> block(4096);
  b.bench.must(again.read(0, block));
  const auto& opened = dynamic_cast<qcow2::image&>(b.top().instance());
  while (opened.cached_l2_pages() > 0) // waits for what must happen, however long it takes
    b.bench.must(sleep_for(std::chrono::microseconds(100)));
  b.bench.must(again.read(0, block));
  CHECK(std::ranges::equal(block, std::span(disk.bytes).subspan(disk.bytes.size() - 65536, 4096)));
}

// With 512-byte clusters a slice describes 32 KiB.
TEST_CASE("qcow2: who reads a disk through has the tables read ahead, and nobody else has") {
  constexpr u64 span = 32 * KiB;
  qcow2_bench b;
  memory_disk& disk = b.create("d", 32 * span, {{"cluster_size", "512"}});
  b.bench.must(b.open("d").write(0, pattern(32 * span, 1)));
  b.close();
  image_editor e(disk.bytes);
  std::vector<u64> tables;
  for (u64 i = 0; i < 32; i++)
    tables.push_back(e.entry_at(i * span));
  root& r = b.open("d", {{"l2-cache-size", "128K"}}, {}, may_read);
  std::vector<u64> loaded;
  disk.fault = [&](std::string_view what, byte_range range) -> std::optional<error> {
    const auto which = std::ranges::find(tables, range.offset);
    if (what == "read" && which != tables.end())
      loaded.push_back(static_cast<u64>(which - tables.begin()));
    return std::nullopt;
  };
  std::vector<std::byte> one(512);
  const auto read_at = [&](u64 slice) {
    loaded.clear();
    b.bench.must(r.read(slice * span, one));
    std::ranges::sort(loaded);
    return loaded;
  };
  CHECK(read_at(5) == std::vector<u64>{5});
  CHECK(read_at(20) == std::vector<u64>{20});
  CHECK(read_at(4) == std::vector<u64>{4});
  CHECK(read_at(6).size() == 1); // not behind the last one that was loaded
  const std::vector<u64> ahead = read_at(7);
  CHECK(ahead.front() == 7);
  CHECK(ahead.back() == 31); // the end of the disk
  CHECK(ahead.size() == 24); // without the one that is there
  for (u64 slice = 8; slice < 32; slice++)
    CHECK(read_at(slice).empty());
}

TEST_CASE("qcow2: what is wrong with a table that is read ahead matters when it is needed") {
  constexpr u64 span = 32 * KiB;
  qcow2_bench b;
  memory_disk& disk = b.create("d", 4 * span, {{"cluster_size", "512"}});
  const auto content = pattern(4 * span, 1);
  b.bench.must(b.open("d").write(0, content));
  b.close();
  const u64 l1 = load<be64>(disk.bytes, 40);
  store(std::span(disk.bytes), be64(u64{1} << 40 | qcow2::entry_copied), l1 + 16);
  const u64 last = load<be64>(disk.bytes, l1 + 24) & qcow2::entry_offset_mask;
  root& r = b.open("d", {}, {}, may_read);
  bool is_failing = true;
  disk.fault = [&](std::string_view, byte_range range) -> std::optional<error> {
    if (is_failing && range.offset == last)
      return error::from_errno(EIO, "the test says so");
    return std::nullopt;
  };
  std::vector<std::byte> two(2 * span);
  b.bench.must(r.read(0, two)); // reads ahead at the second table
  CHECK(is_same(two, std::span(content).first(2 * span)));
  const result<> beyond = b.bench.run(r.read(2 * span, two));
  REQUIRE(!beyond.has_value());
  CHECK(beyond.error().message().contains("reaches beyond the end of the file"));
  is_failing = false;
  b.bench.must(r.read(3 * span, std::span(two).first(span)));
  CHECK(is_same(std::span(two).first(span), std::span(content).last(span)));
}
