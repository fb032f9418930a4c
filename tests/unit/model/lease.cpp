// SPDX-License-Identifier: MIT
// What a lease is for, danger by danger: a case drives each one deliberately.
#include "graph/model/lease.h"

#include "drivers/format/raw/raw.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/visitor.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 cluster = 64 * KiB;

// A qcow2 image on a disk that leases may reach, and roots over it.
struct lease_bench : qcow2_bench {
  root* top_root = nullptr;
  explicit lease_bench(u64 length = 16 * cluster) {
    bench.graph().set_lease_queues(4);
    create("d", length);
    memory_disks()["d"]->is_direct = true;
    top_root = &open("d");
    by().set_may_write(true);
  }
  [[nodiscard]] lease& by() const { return *top_root->shared_lease(); }
  void write(u64 offset, u64 length, u64 seed = 1) {
    bench.must(top_root->write(offset, pattern(length, seed)));
  }
  [[nodiscard]] std::optional<resolved_extent> resolve(u64 offset) const {
    return by().resolve(offset);
  }
  void flush() { bench.must(top_root->flush()); }
};

} // namespace

TEST_CASE("a lease resolves through the layers to the file, with what may be written in place") {
  lease_bench b;
  b.write(3 * cluster, cluster);
  const auto data = b.resolve(3 * cluster + 512);
  REQUIRE(data);
  CHECK(data->guest == byte_range{3 * cluster, cluster});
  CHECK(data->may_write);
  CHECK(!data->is_zero);
  const auto& bytes = memory_disks()["d"]->bytes;
  const auto wanted = pattern(cluster, 1);
  CHECK(std::equal(wanted.begin(), wanted.end(),
                   bytes.begin() + static_cast<std::ptrdiff_t>(data->offset)));
  const auto hole = b.resolve(5 * cluster);
  REQUIRE(hole);
  CHECK(hole->is_zero);
  CHECK(!hole->may_write);
  CHECK(!b.resolve(16 * cluster)); // the end
}

TEST_CASE("a visit is refused while the lease is closed, and a turn waits for those inside") {
  lease_bench b;
  visitor inside(b.by(), 1);
  CHECK(inside.is_inside());
  {
    const lease_closure closed(b.top_root->shared_lease());
    CHECK(!visitor(b.by(), 2).is_inside());
    beside waits(b.bench, closed.wait());
    CHECK(!waits.has_ended());
    inside.leave();
    CHECK(waits.has_ended());
    CHECK(!visitor(b.by(), 2).is_inside());
  }
  CHECK(visitor(b.by(), 2).is_inside());
}

TEST_CASE("turns end although there is always somebody inside, if never for long") {
  lease_bench b;
  std::optional<visitor> a(std::in_place, b.by(), 1);
  beside waits(b.bench, b.by().turn());
  for (int i = 0; i < 3; i++) {
    std::optional<visitor> next(std::in_place, b.by(), 2); // before the last one leaves
    a.reset();
    waits.settle();
    a.emplace(b.by(), 1);
    next.reset();
    waits.settle();
  }
  CHECK(waits.has_ended());
  a.reset();
}

TEST_CASE("a visit that was counted late, in an epoch that had just ended, is waited for") {
  lease_bench b;
  const unsigned ended = b.by().current_epoch(); // a thread is held up here
  b.bench.must(b.by().turn());
  REQUIRE(b.by().current_epoch() != ended);
  REQUIRE(b.by().enter_in(ended, 2));
  beside waits(b.bench, b.by().turn());
  CHECK(!waits.has_ended());
  b.by().leave(2, ended);
  CHECK(waits.has_ended());
}

TEST_CASE("turns that were asked for one after the other end so, whoever came between them") {
  lease_bench b;
  // Two turns one after the other, with a visit that stays from before the first: neither ends.
  visitor stays(b.by(), 3);
  const u64 first = b.by().ask_for_turn();
  const u64 second = b.by().ask_for_turn();
  CHECK(second > first);
  CHECK(!b.by().has_turned(first));
  std::optional<visitor> later(std::in_place, b.by(), 2);
  stays.leave();
  beside waits(b.bench, b.by().turn());
  waits.settle();
  CHECK(b.by().has_turned(first)); // began before `later`
  CHECK(!b.by().has_turned(second));
  later.reset();
  CHECK(waits.has_ended());
  CHECK(b.by().has_turned(second));
}

// Danger: a freed cluster is used again while somebody still reads where it was.
TEST_CASE("space that was freed under a visit is not used again before the visit has ended") {
  lease_bench b;
  b.write(0, cluster);
  b.flush();
  const auto before = b.resolve(0);
  REQUIRE(before);
  std::optional<visitor> reads(std::in_place, b.by(), 1);
  REQUIRE(reads->find(0) == before);
  b.bench.must(b.top_root->discard({0, cluster}));
  CHECK(!reads->find(0)); // retired
  b.flush();
  b.flush();
  const auto place_of = [&](u64 offset) {
    b.write(offset, cluster, 2);
    return b.resolve(offset)->offset;
  };
  for (u64 i = 1; i < 6; i++)
    CHECK(place_of(i * cluster) != before->offset);
  reads.reset();
  b.bench.must(b.by().turn());
  b.flush(); // asks for a turn
  b.bench.must(b.by().turn());
  b.flush();
  bool is_reused = false;
  for (u64 i = 6; i < 12; i++)
    is_reused = is_reused || place_of(i * cluster) == before->offset;
  CHECK(is_reused); // or the wait above proves nothing
}

// Danger: what may be written in place stops being so (a snapshot clears COPIED) under a writer.
TEST_CASE("who narrows what an extent allows waits for those who write by it") {
  lease_bench b;
  b.write(0, cluster);
  std::optional<visitor> writes(std::in_place, b.by(), 1);
  REQUIRE(writes->find(0)->may_write);
  const lease_closure narrowing(b.top_root->shared_lease());
  beside waits(b.bench, narrowing.wait());
  CHECK(!waits.has_ended());
  writes.reset();
  CHECK(waits.has_ended()); // now nobody holds such an extent, and nobody gets one
  CHECK(!visitor(b.by(), 1).is_inside());
}

// Danger: a cluster behind the end of its file is known as zeroes, and stays so when data are
// there. The root that writes finds out anew with each request; the others have to be told, or not
// to be led astray.
namespace {

// A write into a cluster that was never used is held with its table entry made and its data on the
// way, while another root asks what is there; then it goes on, or fails.
struct fresh_cluster : lease_bench {
  static constexpr u64 held_length = 600;
  lease& other;
  event gate;
  bool fails = false;

  fresh_cluster() : other(*bench.attach(top(), may_read).shared_lease()) {
    write(8 * cluster, 512); // so that there is a table
    memory_disk& disk = *memory_disks()["d"];
    disk.hold = [this](std::string_view operation, byte_range range) {
      return operation == "write" && range.length == held_length ? &gate : nullptr;
    };
    disk.fault = [this](std::string_view operation, byte_range range) -> std::optional<error> {
      if (!fails || operation != "write" || range.length != held_length)
        return std::nullopt;
      return error::from_errno(EIO, "the test says so");
    };
  }
  [[nodiscard]] bool knows_zeroes(u64 offset) const {
    const visitor inside(other, 2);
    const auto e = inside.find(offset);
    return e && e->is_zero;
  }
};

} // namespace

TEST_CASE("a fresh cluster is not known as zeroes when its first data are there") {
  fresh_cluster b;
  const auto bytes = pattern(fresh_cluster::held_length, 3);
  beside writes(b.bench, b.top_root->write(0, bytes));
  (void)b.other.resolve(0);
  (void)b.other.resolve(cluster - 512);
  b.gate.set();
  CHECK(writes.has_ended());
  CHECK(!b.knows_zeroes(0));
  const auto now = b.other.resolve(0);
  REQUIRE(now);
  CHECK(!now->is_zero);
}

TEST_CASE("a fresh cluster that the file has outgrown is not known as zeroes either") {
  for (const bool fails : {false, true}) {
    CAPTURE(fails);
    fresh_cluster b;
    b.fails = fails;
    const auto bytes = pattern(fresh_cluster::held_length, 3);
    background writes(b.bench);
    writes.start(b.top_root->write(0, bytes));
    (void)b.other.resolve(0);
    b.write(2 * cluster, 512); // in a cluster behind it: the file is longer now
    if (fails) {
      b.gate.set();
      CHECK(!writes.finish().has_value());
    }
    b.write(cluster / 2, 512); // in place, and it does not lengthen the file
    CHECK(!b.knows_zeroes(cluster / 2));
    b.gate.set();
    (void)writes.finish();
  }
}

// Danger: a request passes an observer (a bitmap, a threshold) that had been attached before.
TEST_CASE("an observer sees every write that begins after it was attached") {
  lease_bench b;
  b.write(0, cluster);
  b.top().set_write_threshold(4096);
  CHECK(!visitor(b.by(), 1).is_inside());
  b.write(0, cluster);
  CHECK(b.top().write_threshold() == 0); // told, and off again
  CHECK(visitor(b.by(), 1).is_inside());
}

// Danger: a flush takes its sample before a write that was answered is counted.
TEST_CASE("a flush sees the writes of visits that have ended") {
  lease_bench b;
  b.write(0, cluster);
  b.flush();
  const auto merged = [&] { return b.top().statistics().merged_flushes; };
  const u64 before = merged();
  b.flush();
  CHECK(merged() == before + 1); // nothing was written
  {
    visitor writes(b.by(), 1);
    writes.count_write({512, 1024}, *writes.find(512));
  }
  b.flush();
  CHECK(merged() == before + 1);
  CHECK(b.top().statistics().of(operation::write).bytes == cluster + 1024);
}

// Danger: a request that must be alone runs beside one that the list does not know.
TEST_CASE("a serialising request waits for visits, and keeps others out") {
  lease_bench b;
  b.write(0, cluster);
  std::optional<visitor> inside(std::in_place, b.by(), 1);
  const auto bytes = pattern(cluster, 9);
  beside alone(b.bench, b.top_root->write(0, bytes, write_flag::serialising));
  CHECK(!alone.has_ended());
  CHECK(!visitor(b.by(), 2).is_inside());
  inside.reset();
  CHECK(alone.has_ended());
  CHECK(visitor(b.by(), 2).is_inside());
  // Who must not wait is told so.
  inside.emplace(b.by(), 1);
  const result<> busy = b.bench.run(b.top_root->write(
      0, bytes, static_cast<write_flags>(write_flag::serialising | write_flag::no_wait)));
  REQUIRE(!busy);
  CHECK(busy.error().message().ends_with("may be in use by requests that pass the list"));
}

// Danger: a drain ends while requests run on another thread's ring.
TEST_CASE("a drain waits for visits") {
  lease_bench b;
  b.write(0, cluster);
  std::optional<visitor> inside(std::in_place, b.by(), 1);
  static constexpr auto nothing = [](graph::drained&) -> task<void> { co_return; };
  beside drains(b.bench, with(b.bench.graph().drain(b.top()), nothing));
  CHECK(!drains.has_ended());
  CHECK(!visitor(b.by(), 2).is_inside());
  inside.reset();
  CHECK(drains.has_ended());
  const visitor again(b.by(), 2);
  CHECK(again.is_inside());
  CHECK(!again.find(0)); // what an edit may have changed is found out anew
}

TEST_CASE("a root that is released waits for visits, and its lease knows nothing more") {
  lease_bench b;
  b.write(0, cluster);
  const std::shared_ptr<lease> by = b.top_root->shared_lease(); // as an open file has it
  std::optional<visitor> inside(std::in_place, *by, 1);
  beside released(b.bench, b.top_root->release());
  CHECK(!released.has_ended());
  CHECK(inside->find(0)); // still true
  CHECK(!visitor(*by, 2).is_inside());
  inside.reset();
  CHECK(released.has_ended());
  CHECK(!by->is_bound());
  CHECK(!visitor(*by, 2).is_inside());
}

TEST_CASE("a root that is released during an edit is not bound again when that ends") {
  lease_bench b;
  root& other = b.bench.attach(b.top(), may_read);
  const std::shared_ptr<lease> by = b.top_root->shared_lease();
  std::optional<visitor> inside(std::in_place, *other.shared_lease(), 1);
  const auto change = [](graph& of, root& which, std::string top) -> task<void> {
    graph_edit edit;
    edit.roots.push_back({.which = &which, .top = std::move(top), .wanted = may_read});
    (void)co_await of.apply(std::move(edit));
  };
  beside edits(b.bench, change(b.bench.graph(), other, b.top().name()));
  REQUIRE(!edits.has_ended()); // somebody is inside
  beside released(b.bench, b.top_root->release());
  CHECK(!released.has_ended());
  inside.reset();
  CHECK(edits.has_ended());
  CHECK(released.has_ended());
  CHECK(!by->is_bound());
}

// Danger: an extent that one root has changed lives on in another root's table.
TEST_CASE("what changes below is retired in every root above") {
  lease_bench b;
  root& other = b.bench.attach(b.top(), may_read);
  REQUIRE(other.shared_lease()->resolve(cluster)->is_zero);
  REQUIRE(b.resolve(cluster)->is_zero);
  b.write(cluster, 4096);
  CHECK(!other.shared_lease()->find(cluster));
  CHECK(!other.shared_lease()->resolve(cluster)->is_zero);
  b.bench.must(b.top_root->write_zeroes({cluster, cluster}));
  CHECK(!other.shared_lease()->find(cluster));
  CHECK(other.shared_lease()->resolve(cluster)->is_zero);
  CHECK(!other.shared_lease()->resolve(0)->may_write); // it only reads
}

TEST_CASE("what shows through from a backing node is retired when the overlay hides it") {
  qcow2_bench b;
  b.bench.graph().set_lease_queues(2);
  b.create("d", 4 * cluster);
  memory_disks()["d"]->is_direct = true;
  b.place("base", pattern(3 * cluster, 5)).is_direct = true;
  root& top = b.open("d", {}, "base");
  lease& by = *top.shared_lease();
  const auto below = by.resolve(cluster);
  REQUIRE(below);
  CHECK(below->offset == cluster);
  CHECK(!below->may_write);
  CHECK(by.path(below->path).nodes.size() == 2);
  CHECK(by.resolve(3 * cluster)->is_zero); // past the end of the base
  b.bench.must(top.write(cluster, pattern(512, 1)));
  REQUIRE(by.find(cluster)); // learnt by the write itself
  CHECK(by.find(cluster)->may_write);
  CHECK(by.path(by.find(cluster)->path).file == by.path(below->path).file);
  CHECK(by.find(cluster)->offset != below->offset);
}

TEST_CASE("nothing is written in place where a node wants to see the bytes, or cannot be written") {
  qcow2_bench b;
  b.bench.graph().set_lease_queues(2);
  b.create("d", 4 * cluster);
  memory_disks()["d"]->is_direct = true;
  const auto may_write_there = [&](const option_list& options, permissions wanted) {
    root& r = b.open("d", options, {}, wanted);
    if ((wanted.used & permission::write) != 0)
      b.bench.must(r.write(0, pattern(cluster, 1)));
    std::vector<std::byte> bytes(cluster);
    b.bench.must(r.read(0, bytes)); // so that it is known where they are
    const auto resolved = r.shared_lease()->resolve(0);
    REQUIRE(resolved);
    const bool may = resolved->may_write;
    b.close();
    return may;
  };
  CHECK(may_write_there({}, may_resize));
  CHECK(!may_write_there({{"detect-zeroes", "on"}}, may_resize));
  CHECK(!may_write_there({{"cache.writeback", "false"}}, may_resize));
  CHECK(!may_write_there({{"read-only", "true"}}, may_read));
}

TEST_CASE("a disk that changes its length is resolved anew, and its end is the lease's") {
  lease_bench b;
  b.write(15 * cluster, cluster);
  REQUIRE(b.resolve(15 * cluster));
  b.bench.must(b.top_root->truncate(8 * cluster));
  CHECK(b.by().length() == 8 * cluster);
  CHECK(!b.by().find(15 * cluster));
  b.bench.must(b.top_root->truncate(16 * cluster));
  CHECK(b.resolve(15 * cluster)->is_zero);
}

TEST_CASE("what was found corrupt is not written in place any more") {
  lease_bench b;
  b.write(0, cluster);
  REQUIRE(b.resolve(0)->may_write);
  (void)b.top().report_corruption("for a test");
  CHECK(!b.by().find(0));
  CHECK(!b.resolve(0)->may_write);
}

TEST_CASE("what cannot be resolved is tried more and more rarely, and not given up") {
  lease_bench b;
  b.write(0, cluster);
  memory_disk& disk = *memory_disks()["d"];
  disk.is_direct = false;
  b.by().retire_all();
  disk.direct_asked = 0;
  for (int i = 0; i < 1000; i++)
    (void)b.resolve(0);
  CHECK(disk.direct_asked > 5);
  CHECK(disk.direct_asked < 30);
  disk.is_direct = true;
  int tries = 1;
  while (!b.resolve(0))
    tries++;
  CHECK(tries <= 64);
  CHECK(b.resolve(0)); // and it is tried each time again
}
