// SPDX-License-Identifier: MIT
// Which instants of a qcow2 image are told to a blkdebug below it, and what becomes of the image
// when a request fails there.
#include "drivers/filter/blkdebug/blkdebug.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/background.h"

#include <set>

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct told_bench {
  qcow2_bench b{{&blkdebug_driver_type}};
  memory_disk* disk = nullptr;
  node* top = nullptr;
  root* way = nullptr;
  std::set<std::string> passed; // events that were reached

  // Clusters of 512 bytes: tables fill up soon.
  explicit told_bench(u64 length = 1 * MiB, const option_list& options = {}) {
    option_list all = {{"cluster_size", "512"}};
    all.insert(all.end(), options.begin(), options.end());
    disk = &b.create("d", length, all);
  }
  void open(value rules = {}, const char* backing = nullptr, value more = value::map()) {
    spec_builder bug("bug", blkdebug_driver_type);
    bug.child("image", disk_spec("d"));
    if (!rules.is_null())
      bug.set("inject-error", value::list{std::move(rules)});
    spec_builder image("top", qcow2_driver_type);
    image.child("file", bug).set("discard", "unmap");
    for (const auto& [key, v] : *more.as_map())
      image.set(key, v);
    image.no_backing = backing == nullptr;
    if (backing != nullptr)
      image.child("backing", disk_spec(backing));
    top = &b.bench.open(image);
    way = &b.bench.attach(*top, may_resize);
  }
  [[nodiscard]] debuggable& debugger() { return *b.bench.graph().find("bug")->as_debuggable(); }
  // Runs it with a breakpoint at every event; notes which were reached.
  void run(task<void> work) {
    for (const debug_event_description& e : debug_event_table)
      debugger().set_breakpoint({e.event, std::string(e.name)});
    background tasks(b.bench);
    tasks.start(std::move(work));
    while (tasks.running() > 0) {
      for (const debug_breakpoint& at : debugger().suspended()) {
        passed.insert(at.tag);
        debugger().set_breakpoint(at); // it may come again
        debugger().resume(at.tag);
      }
      tasks.settle();
    }
    for (const debug_event_description& e : debug_event_table)
      debugger().remove_breakpoint(e.name);
    const result<> done = tasks.finish();
    CHECK_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
  }
  void expect(std::initializer_list<const char*> events) {
    for (const char* event : events)
      CHECK_MESSAGE(passed.contains(event), std::string(event));
  }
  void close() {
    b.bench.detach(*way);
    b.bench.must(b.bench.graph().close(*top));
  }
};

} // namespace

TEST_CASE("qcow2 tells of its instants: writes, reads, tables that are made and grow") {
  told_bench t(1 * MiB);
  t.open();
  const auto bytes = pattern(40 * KiB, 1);
  t.run(t.way->write(100, bytes));
  t.expect({"cluster_alloc", "l2_alloc_write", "l1_update", "write_aio", "refblock_load"});
  t.run(t.way->flush());
  t.expect({"flush_to_os", "flush_to_disk", "l2_update", "refblock_update_part"});
  std::vector<std::byte> read(bytes.size());
  t.run(t.way->read(100, read));
  CHECK(read == bytes);
  t.expect({"read_aio"});
  t.run(t.way->discard({0, 16 * KiB}));
  t.run(t.way->flush());
  t.expect({"cluster_free"});
  for (u64 i = 0; i < 8; i++) // more than one refcount block describes
    t.run(t.way->write(i * bytes.size(), bytes));
  t.expect({"refblock_alloc", "refblock_alloc_write", "refblock_alloc_hookup"});
  t.run(t.way->truncate(64 * MiB));
  t.expect({"l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table"});
  u64 at = 1 * MiB;
  for (; at < 7 * MiB; at += bytes.size()) // the refcount table describes 8 MiB
    t.b.bench.must(t.way->write(at, bytes));
  for (; !t.passed.contains("reftable_grow") && at < 9 * MiB; at += bytes.size())
    t.run(t.way->write(at, bytes));
  t.expect({"reftable_grow", "refblock_alloc_write_blocks", "refblock_alloc_write_table",
            "refblock_alloc_switch_table"});
  t.run(t.way->truncate(64 * KiB));
  t.expect({"l1_shrink_write_table", "l1_shrink_free_l2_clusters"});
  t.close();
  require_sound(*t.disk);
}

TEST_CASE(
    "qcow2 tells of its instants: copies, backing files, compressed clusters, machine states") {
  told_bench t(256 * KiB, {{"cluster_size", "4096"}});
  t.b.place("base", pattern(256 * KiB, 3));
  t.open({}, "base");
  const auto bytes = compressible_pattern(64 * KiB, 4096, 1);
  t.run(t.way->write(4096 + 100, std::span(bytes).first(100)));
  t.expect({"cow_read", "read_backing_aio", "cow_write", "write_aio"});
  t.run(t.way->write(64 * KiB, bytes, write_flag::compressed));
  t.expect({"cluster_alloc_bytes", "write_compressed", "l2_update_compressed"});
  std::vector<std::byte> read(64 * KiB);
  t.run(t.way->read(64 * KiB, read));
  CHECK(read == bytes);
  t.expect({"read_compressed"});
  t.run(t.way->read(128 * KiB, read));
  t.expect({"read_backing_aio"});
  t.run(t.top->write_vmstate(0, bytes));
  t.run(t.top->read_vmstate(0, read));
  t.expect({"vmstate_save", "vmstate_load"});
  t.b.bench.must(t.b.bench.graph().create_snapshot(*t.top, {.name = "s"}));
  t.passed.clear();
  t.run(t.way->write(4096, bytes));
  t.expect({"l2_alloc_cow_read", "l2_alloc_write"});
  t.close();
}

TEST_CASE("qcow2 tells of its instants: what an opening reads") {
  told_bench t;
  t.open();
  const auto bytes = pattern(4096, 1);
  t.b.bench.must(t.way->write(0, bytes));
  t.close();
  t.open(value(value::map{{"event", "reftable_load"}, {"iotype", "write"}, {"errno", 28}}));
  // The rule has been in force since the refcount table was read.
  CHECK(t.debugger().describe_rules()[0].ends_with("(in force)"));
  std::vector<std::byte> read(512);
  t.run(t.way->read(0, read));
  t.expect({"l2_load"});
  (void)t.b.bench.run(t.way->write(0, bytes));
  t.b.bench.detach(*t.way);
  (void)t.b.bench.run(t.b.bench.graph().close(*t.top));
}

TEST_CASE("qcow2: a request that fails at any instant leaves a sound image with what was there") {
  const auto before = pattern(64 * KiB, 1);
  const auto after = pattern(64 * KiB, 2);
  for (const debug_event_description& e : debug_event_table) {
    for (const u64 os_error : {u64{5}, u64{28}}) {
      CAPTURE(e.name);
      CAPTURE(os_error);
      told_bench t(4 * MiB);
      t.open();
      t.b.bench.must(t.way->write(0, before));
      t.close();
      if (e.event == debug_event::none || e.event == debug_event::reftable_load)
        continue; // it would not open
      t.open(value(
          value::map{{"event", e.name}, {"errno", os_error}, {"once", true}, {"iotype", "write"}}));
      // Enough for new refcount blocks and L2 tables.
      for (u64 at = 64 * KiB; at < 512 * KiB; at += after.size()) {
        const result<> first = t.b.bench.run(t.way->write(at, after));
        if (first)
          continue;
        CHECK(first.error().os_error() == static_cast<int>(os_error));
        const result<> second = t.b.bench.run(t.way->write(at, after));
        // Only where it is not known which table is in force nothing is written any more.
        CHECK((second || second.error().message().contains("takes no more writes")));
        if (!second)
          break;
      }
      std::vector<std::byte> read(before.size());
      t.b.bench.must(t.way->read(0, read));
      CHECK(read == before);
      t.b.bench.detach(*t.way);
      (void)t.b.bench.run(t.b.bench.graph().close(*t.top));
      require_sound(*t.disk, true);
    }
  }
}

TEST_CASE(
    "qcow2: while a request waits at a table's update, reads go on and the next write waits") {
  told_bench t;
  t.open();
  const auto bytes = pattern(4096, 1);
  t.b.bench.must(t.way->write(0, bytes));
  t.debugger().set_breakpoint({debug_event::l2_alloc_write, "A"});
  background tasks(t.b.bench);
  tasks.start(t.way->write(512 * KiB, bytes));
  CHECK(t.debugger().is_suspended("A"));
  tasks.start(t.way->write(768 * KiB, bytes)); // needs the lock of the tables
  CHECK(tasks.running() == 2);
  std::vector<std::byte> read(4096);
  t.b.bench.must(t.way->read(0, read));
  CHECK(read == bytes);
  CHECK(t.debugger().resume("A"));
  CHECK(tasks.finish().has_value());
  t.close();
  require_sound(*t.disk);
}
