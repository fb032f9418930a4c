// SPDX-License-Identifier: MIT
// Dirty bitmaps of nodes: every way to change data sets their bits, what changes none does not, and
// each change of a bitmap is one instant.
#include "drivers/filter/copy_on_read/copy_on_read.h"
#include "drivers/format/raw/raw.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/bitmap_actions.h"
#include "tests/unit/lib/heap_trips.h"
#include "tests/unit/lib/layer_driver.h"
#include "tests/unit/lib/visitor.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

using runs = std::vector<byte_range>;
using kind = bitmap_change::kind;

// One disk with a bitmap "b" of blocks of 512 bytes.
struct disk_bench {
  graph_bench bench{{&raw_driver_type}};
  memory_disk& disk;
  root* r;
  node* top;
  std::optional<bitmap_actions> b;

  explicit disk_bench(u64 length = 64 * KiB, const char* discard = "unmap")
      : disk(bench.disk("d", length)),
        r(&bench.attach(bench.open(disk_spec("d").set("discard", discard)), may_resize)),
        top(&r->top()) {
    b.emplace(bench, *top);
    b->add("b", 512);
  }
};

} // namespace

TEST_CASE("bitmap: writes, zero writes and discards mark the blocks that they touch") {
  disk_bench d;
  d.bench.must(d.r->write(1000, pattern(100, 1)));
  d.bench.must(d.r->write_zeroes({4096, 512}));
  d.bench.must(d.r->discard({8191, 2}));
  CHECK(d.b->dirty("b") == runs{{512, 1024}, {4096, 512}, {7680, 1024}});
  CHECK(d.b->read("b").dirty_bytes() == 2560);
  CHECK(d.b->read("b").is_dirty(1000));
  CHECK(!d.b->read("b").is_dirty(2000));
  d.b->clear("b");
  CHECK(d.b->dirty("b").empty());
  d.bench.must(d.r->write(0, {}));
  std::vector<std::byte> bytes(512);
  d.bench.must(d.r->read(0, bytes));
  d.bench.must(d.r->flush());
  CHECK(d.b->dirty("b").empty());
}

TEST_CASE(
    "bitmap: what says that nothing changes marks nothing, nor does a discard that is ignored") {
  disk_bench d(64 * KiB, "ignore");
  d.bench.must(d.r->discard({0, 4096}));
  d.bench.must(d.r->write(0, pattern(512, 1), write_flag::unchanged));
  d.bench.must(d.r->write_zeroes({512, 512}, write_flag::unchanged));
  CHECK(d.b->dirty("b").empty());
  CHECK(d.b->error_of(d.b->addition("b")).ends_with("there is a bitmap of that name already"));
}

TEST_CASE("bitmap: a request that fails marks all the same, for nobody knows what it did") {
  disk_bench d;
  d.disk.fault = [](std::string_view what, byte_range) -> std::optional<error> {
    if (what == "read" || what == "flush")
      return std::nullopt;
    return error(error_kind::io, std::string(what));
  };
  CHECK(!d.bench.run(d.r->write(512, pattern(512, 1))));
  CHECK(!d.bench.run(d.r->write_zeroes({2048, 512})));
  CHECK(!d.bench.run(d.r->discard({8192, 512})));
  CHECK(d.b->dirty("b") == runs{{512, 512}, {2048, 512}, {8192, 512}});
  d.b->clear("b");
  CHECK(!d.bench.run(d.r->truncate(32 * KiB))); // it may have gone some of the way
  CHECK(d.b->dirty("b") == runs{{32 * KiB, 32 * KiB}});
  CHECK(!d.bench.run(d.r->write(64 * KiB, pattern(512, 1)))); // refused or not, there is no bit
}

TEST_CASE("bitmap: one that is disabled keeps what it has") {
  disk_bench d;
  d.bench.must(d.r->write(0, pattern(512, 1)));
  d.b->disable("b");
  d.bench.must(d.r->write(4096, pattern(512, 1)));
  CHECK(d.b->dirty("b") == runs{{0, 512}});
  d.b->enable("b");
  d.bench.must(d.r->write(8192, pattern(512, 1)));
  CHECK(d.b->dirty("b") == runs{{0, 512}, {8192, 512}});
}

TEST_CASE(
    "bitmap: the node's length is followed: what is added is clean, what is cut off forgotten") {
  disk_bench d(10000);
  d.bench.must(d.r->write(9000, pattern(1000, 1)));
  CHECK(d.b->dirty("b") == runs{{8704, 1296}});
  CHECK(d.b->read("b").dirty_bytes() == 1296);
  d.bench.must(d.r->truncate(9100));
  d.bench.must(d.r->truncate(20000));
  CHECK(d.b->dirty("b") == runs{{8704, 512}}); // the rest was forgotten
  d.b->clear("b");
  d.bench.must(d.r->write(30000, pattern(512, 1))); // which lengthens it
  CHECK(d.b->read("b").length() == 30512);
  CHECK(d.b->dirty("b") == runs{{29696, 816}});
}

TEST_CASE("bitmap: a compressed write marks, detected zeroes mark") {
  graph_bench bench({&layer_driver_type});
  test_layer layer(bench, "top", 16 * KiB);
  root& r = bench.attach(bench.open(layer.spec().set("detect-zeroes", "on")));
  const bitmap_actions b{bench, r.top()};
  b.add("b", 512);
  bench.must(r.write(0, pattern(2048, 1), write_flag::compressed));
  CHECK(b.dirty("b") == runs{{0, 2048}});
  bench.must(r.write(4096, std::vector<std::byte>(1024)));
  CHECK(b.dirty("b") == runs{{0, 2048}, {4096, 1024}});
}

TEST_CASE("bitmap: copying up changes nothing above, and writes below") {
  graph_bench bench({&layer_driver_type, &copy_on_read_driver_type});
  test_layer top(bench, "top", 16 * KiB), low(bench, "low", 16 * KiB);
  low.hold(0, pattern(16 * KiB, 3));
  bench.open(low.spec());
  node& image = bench.open(top.spec().child("backing", "low"));
  node& front = bench.open(spec_builder("front", copy_on_read_driver_type).child("file", "top"));
  node& file = image.child("file")->child();
  root& r = bench.attach(front);
  bitmap_actions{bench, front}.add("b", 512);
  bitmap_actions{bench, image}.add("b", 512);
  bitmap_actions{bench, file}.add("b", 512);
  std::vector<std::byte> bytes(512);
  bench.must(r.read(1024, bytes));
  CHECK(bitmap_actions{bench, front}.dirty("b").empty());
  CHECK(bitmap_actions{bench, image}.dirty("b").empty());
  CHECK(!bitmap_actions{bench, file}.dirty("b").empty()); // its bytes are others now
  bench.must(r.write(8192, bytes));
  CHECK(bitmap_actions{bench, front}.dirty("b") == runs{{8192, 512}});
  CHECK(bitmap_actions{bench, image}.dirty("b") == runs{{8192, 512}});
}

TEST_CASE("bitmap: granularity, size and name are checked") {
  disk_bench d;
  for (const u64 wrong : {u64{1}, u64{256}, u64{513}, u64{1} << 32})
    CHECK(d.b->error_of(d.b->addition("x", wrong)) ==
          fmt::format("adding bitmap 'x' to node '{}' (memory): the granularity of a bitmap is a "
                      "power of two from 512 to 2147483648 bytes, not {}",
                      d.top->name(), wrong));
  CHECK(d.b->error_of(d.b->addition("")).ends_with("a bitmap needs a name"));
  CHECK(d.b->error_of(d.b->addition("a/b")).find("neither '/' nor control") != std::string::npos);
  CHECK(d.b->error_of(d.b->addition("\xff")).find("is UTF-8") != std::string::npos);
  CHECK(d.b->error_of(d.b->addition(std::string(241, 'n')))
            .ends_with("the name of a bitmap has at most 240 bytes, not 241"));
  d.b->add(std::string(240, 'n'));
  CHECK(d.b->find(std::string(240, 'n'))->granularity() == 64 * KiB);
  CHECK(default_bitmap_granularity(512) == 4096);
  CHECK(default_bitmap_granularity(32 * KiB) == 32 * KiB);
  CHECK(default_bitmap_granularity(2 * MiB) == 64 * KiB);
  CHECK(check_bitmap_size(u64{1} << 41, 512).has_value());
  const result<> large = check_bitmap_size((u64{1} << 41) + 1, 512);
  REQUIRE(!large);
  CHECK(large.error().message() ==
        "a bitmap of 2199023255553 bytes with a granularity of 512 takes 536870913 bytes of "
        "memory, more than 536870912; use a granularity of at least 1024");
  CHECK(d.b->error_of(d.b->addition("p", 512, true))
            .ends_with("driver 'memory' keeps no bitmaps in its images; use a format that does, "
                       "such as qcow2, or one that is not persistent"));
}

TEST_CASE("bitmap: how much memory those of one node take is bounded, whatever images claim") {
  CHECK(check_bitmaps_memory(GiB).has_value());
  const result<> refused = check_bitmaps_memory(GiB + 1);
  REQUIRE(!refused);
  CHECK(refused.error().message() == "the bitmaps of the node take 1073741825 bytes of memory "
                                     "already, more than 1073741824; remove some");
  // 2 MiB each, whatever they hold.
  std::vector<bitmap_definition> many(600, {.name = "n", .granularity = 512});
  many[3].inconsistency = "for another reason";
  many = within_memory(std::move(many), u64{1} << 41);
  CHECK(many[512].inconsistency.empty());
  CHECK(many[513].inconsistency == "the bitmaps before it take all the memory that there may be");
}

TEST_CASE("bitmap: what is not there is named with what is") {
  disk_bench d;
  CHECK(d.b->error_of(d.b->change(kind::clear, "x")) ==
        fmt::format("clearing bitmap 'x' of node '{0}' (memory): node '{0}' (memory) has no bitmap "
                    "'x'; there are 'b'",
                    d.top->name()));
  d.b->remove("b");
  const auto none = d.b->try_read("b");
  REQUIRE(!none);
  CHECK(none.error().kind() == error_kind::not_found);
  CHECK(none.error().message().ends_with("has no bitmap 'b'; there are none"));
}

TEST_CASE("bitmap: merging is the union, whatever the granularities, and across nodes") {
  constexpr u64 length = 100 * KiB + 512;
  for (const u64 to : {512, 4096, 65536}) {
    for (const u64 from : {512, 4096, 65536}) {
      CAPTURE(to);
      CAPTURE(from);
      graph_bench bench({});
      bench.disk("x", length);
      bench.disk("y", length);
      root& x = bench.attach(bench.open(disk_spec("x")));
      root& y = bench.attach(bench.open(disk_spec("y")));
      const bitmap_actions bx{bench, x.top()}, by{bench, y.top()};
      bx.add("b", to);
      by.add("b", from);
      std::mt19937_64 random(to * 7 + from);
      std::vector<bool> model(divide_up(length, to));
      const auto touch = [&](root& r, u64 granularity) {
        const u64 offset = random() % length;
        const u64 count = std::min<u64>(1 + random() % 9000, length - offset);
        bench.must(r.write(offset, pattern(count, 1)));
        const byte_range whole = byte_range{offset, count}.widened_to(granularity);
        const u64 end = std::min(whole.end(), length);
        for (u64 i = whole.offset / to; i * to < end; i++)
          model[i] = true;
      };
      for (int i = 0; i < 3; i++) {
        touch(x, to);
        touch(y, from);
      }
      bx.merge("b", y.top(), "b");
      const dirty_bitmap& merged = bx.read("b");
      for (u64 i = 0; i < model.size(); i++)
        CHECK(merged.is_dirty(i * to) == model[i]);
      bx.merge("b", x.top(), "b"); // with itself
      CHECK(bx.read("b").bits() == merged.bits());
    }
  }
}

TEST_CASE("bitmap: a merge that cannot be leaves the target as it was") {
  disk_bench d;
  d.bench.disk("other", 32 * KiB);
  node& other = d.bench.open(disk_spec("other"));
  const bitmap_actions o{d.bench, other};
  o.add("b", 512);
  d.bench.must(d.r->write(0, pattern(512, 1)));
  CHECK(d.b->error_of(d.b->merging("b", other, "b"))
            .ends_with("the bitmaps describe disks of different lengths: 32768 bytes and 65536"));
  CHECK(d.b->error_of(d.b->merging("b", other, "none")).find("has no bitmap 'none'") !=
        std::string::npos);
  CHECK(d.b->dirty("b") == runs{{0, 512}});
  d.bench.must(d.bench.graph().close(other));
}

TEST_CASE("bitmap: several changes are all made or none") {
  disk_bench d;
  d.b->add("other", 4096);
  d.bench.must(d.r->write(0, pattern(512, 1)));
  const std::vector<bitmap_change> changes = {d.b->change(kind::disable, "b"),
                                              d.b->change(kind::clear, "b"),
                                              d.b->addition("new"),
                                              d.b->merging("new", *d.top, "other"),
                                              d.b->change(kind::remove, "other"),
                                              d.b->change(kind::clear, "other")};
  const result<> failed = d.b->attempt(changes);
  REQUIRE(!failed); // the last one
  CHECK(failed.error().message().find("has no bitmap 'other'; there are 'b', 'new'") !=
        std::string::npos);
  CHECK(d.b->find("new") == nullptr);
  CHECK(d.b->dirty("b") == runs{{0, 512}});
  CHECK(d.b->find("b")->is_enabled());
  CHECK(d.b->dirty("other") == runs{{0, 4096}});
  d.bench.must(d.r->write(8192, pattern(512, 1)));
  CHECK(d.b->dirty("other") == runs{{0, 4096}, {8192, 4096}}); // it records again
  std::vector<bitmap_change> good(changes.begin(), changes.end() - 1);
  REQUIRE(d.b->attempt(std::move(good)).has_value());
  CHECK(d.b->dirty("b").empty());
  CHECK(d.b->dirty("new") == runs{{0, 64 * KiB}});
  CHECK(d.b->find("other") == nullptr);
}

TEST_CASE("bitmap: one that is held is not changed, and its node keeps its length") {
  disk_bench d;
  const std::string name = d.top->name();
  std::optional<bitmap_hold> held(std::in_place, *d.top, *d.b->find("b"), "job 'backup0'");
  for (const kind k : {kind::clear, kind::enable, kind::disable, kind::remove})
    CHECK(d.b->error_of(d.b->change(k, "b"))
              .ends_with(fmt::format("bitmap 'b' of node '{}' (memory) is in use by job 'backup0'",
                                     name)));
  CHECK(d.b->error_of(d.b->merging("b", *d.top, "b")).ends_with("is in use by job 'backup0'"));
  d.b->add("copy", 512);
  d.b->merge("copy", *d.top, "b");               // reading is for everybody
  d.bench.must(d.r->write(512, pattern(10, 1))); // and it records
  CHECK(d.b->dirty("b") == runs{{512, 512}});
  const result<> resized = d.bench.run(d.r->truncate(4096));
  REQUIRE(!resized);
  CHECK(resized.error().kind() == error_kind::busy);
  CHECK(resized.error().message().ends_with("bitmap 'b' is in use by job 'backup0'"));
  CHECK(d.r->length() == 64 * KiB);
  held.reset();
  d.bench.must(d.r->truncate(4096));
  d.b->remove("b");
}

TEST_CASE("bitmap: of a node above, too, for whose length the node below decides") {
  graph_bench bench({&raw_driver_type});
  bench.disk("d", 64 * KiB);
  node& top = bench.open(spec_builder("top", raw_driver_type).child("file", disk_spec("d")));
  root& below = bench.attach(top.child("file")->child(), may_resize);
  const bitmap_actions b{bench, top};
  b.add("b", 512);
  {
    const bitmap_hold held(top, *b.find("b"), "job 'x'");
    const result<> resized = bench.run(below.truncate(4096));
    REQUIRE(!resized);
    CHECK(resized.error().message() == "bitmap 'b' of node 'top' (raw) is in use by job 'x'");
  }
  bench.must(below.truncate(4096));
  CHECK(b.read("b").length() == 4096);
}

TEST_CASE("bitmap: one that cannot follow a growing node says that it is of no use any more") {
  disk_bench d(u64{1} << 20);
  d.top = &d.r->top();
  const result<> grown = d.bench.run(d.r->truncate(u64{1} << 42));
  REQUIRE(!grown);
  CHECK(grown.error().message().find("use a granularity of at least 1024") != std::string::npos);
  dirty_bitmap alone({.name = "n", .granularity = 512}, 4096, dirty_bitmap::origin::added);
  alone.mark({0, 1});
  alone.resize(u64{1} << 42); // where nobody could refuse
  CHECK(alone.is_inconsistent());
  CHECK(!alone.is_recording());
  CHECK(alone.memory() == 0);
  alone.mark({0, 4096}); // and that is no error
}

// Danger: a dirty bit in the wrong bitmap. A request is half done when the instant is asked for.
TEST_CASE("bitmap: a change waits for the writes that have begun, and those after it wait for it") {
  disk_bench d;
  event gate;
  u64 holding = 0;
  d.disk.hold = [&](std::string_view what, byte_range range) -> event* {
    return what == "write" && range.offset == holding ? &gate : nullptr;
  };
  const auto old_bytes = pattern(512, 1), new_bytes = pattern(512, 2);
  background tasks(d.bench);
  tasks.start(d.r->write(0, old_bytes));
  std::vector<bitmap_change> point = {d.b->addition("since", 512), d.b->change(kind::disable, "b")};
  tasks.start(d.bench.graph().change_bitmaps(std::move(point)));
  tasks.start(d.r->write(4096, new_bytes));
  CHECK(tasks.running() == 3); // nothing is at the instant yet, nor beyond it
  CHECK(d.b->find("since") == nullptr);
  CHECK(d.disk.operations == 1);
  holding = ~u64{0};
  gate.set();
  REQUIRE(tasks.finish().has_value());
  CHECK(d.b->dirty("b") == runs{{0, 512}});
  CHECK(d.b->dirty("since") == runs{{4096, 512}});
}

TEST_CASE("bitmap: clearing loses no write that is under way") {
  disk_bench d;
  event gate;
  d.disk.hold = [&](std::string_view what, byte_range) -> event* {
    return what == "write" ? &gate : nullptr;
  };
  const auto bytes = pattern(512, 1);
  background tasks(d.bench);
  tasks.start(d.bench.graph().change_bitmaps({d.b->change(kind::clear, "b")}));
  CHECK(tasks.running() == 0);
  tasks.start(d.r->write(0, bytes));
  tasks.start(d.bench.graph().change_bitmaps({d.b->change(kind::clear, "b")}));
  gate.set();
  REQUIRE(tasks.finish().has_value());
  // The write was answered before the instant: what it changed is what was cleared away.
  CHECK(d.b->dirty("b").empty());
  d.bench.must(d.r->write(1024, bytes));
  CHECK(d.b->dirty("b") == runs{{1024, 512}});
}

TEST_CASE("bitmap: a node that records is not written by leases, one that does not is") {
  qcow2_bench q;
  q.bench.graph().set_lease_queues(2);
  q.create("d", MiB);
  memory_disks()["d"]->is_direct = true;
  root& r = q.open("d");
  lease& by = *r.shared_lease();
  by.set_may_write(true);
  q.bench.must(r.write(0, pattern(64 * KiB, 1)));
  const bitmap_actions b{q.bench, q.top()};
  REQUIRE(by.resolve(0)->may_write);
  {
    visitor inside(by, 1); // it has such an extent: adding has to wait for it
    beside adds(q.bench, q.bench.graph().change_bitmaps({b.addition("b", 512)}));
    CHECK(!adds.has_ended());
    CHECK(!visitor(by, 0).is_inside());
    inside.leave();
    CHECK(adds.has_ended());
  }
  CHECK(!visitor(by, 1).find(0)); // nothing of before is known
  REQUIRE(by.resolve(0));
  CHECK(!by.resolve(0)->may_write); // reads go on by lease
  b.disable("b");
  CHECK(by.resolve(0)->may_write);
  b.enable("b");
  CHECK(!by.resolve(0)->may_write);
  // One of the file below counts as much.
  b.remove("b");
  const bitmap_actions below{q.bench, q.top().child("file")->child()};
  below.add("b", 512);
  CHECK(!by.resolve(0)->may_write);
}

TEST_CASE("bitmap: who writes past the node and who records exclude each other") {
  disk_bench d;
  CHECK(!d.top->whole_host_file(true).has_value());
  d.top->begin_writes_by_others(); // one that had asked before
  CHECK(d.b->dirty("b") == runs{{0, 64 * KiB}});
  CHECK(d.b->error_of(d.b->addition("x")).ends_with("is written past this process at the moment"));
  d.b->disable("b");
  CHECK(d.b->error_of(d.b->change(kind::enable, "b"))
            .ends_with("is written past this process at the moment"));
  d.top->end_writes_by_others();
  d.b->enable("b");
  const auto token =
      d.top->blockers().add(needs_to_see_writes, "the kernel writes it for cat (pid 7)");
  const result<> refused = d.b->attempt(d.b->change(kind::clear, "b"));
  REQUIRE(!refused);
  CHECK(refused.error().kind() == error_kind::busy);
  CHECK(
      refused.error().message() ==
      fmt::format("node '{}' (memory) cannot be used for 'dirty-bitmap' now: the kernel writes it "
                  "for cat (pid 7)",
                  d.top->name()));
  d.top->blockers().remove(token);
}

TEST_CASE("bitmap: what others wrote while a node was deactivated counts as dirty") {
  disk_bench d;
  d.b->add("old", 512, false);
  d.bench.detach(*d.r);
  d.bench.must(d.bench.graph().deactivate(*d.top));
  CHECK(
      d.b->error_of(d.b->change(kind::clear, "b")).ends_with("is deactivated; activate it first"));
  d.disk.bytes.resize(128 * KiB);
  d.bench.must(d.bench.graph().activate(*d.top));
  CHECK(d.b->dirty("b") == runs{{0, 128 * KiB}});
  CHECK(d.b->dirty("old").empty()); // it had stopped to record before
}

TEST_CASE(
    "bitmap: where nothing records a write makes no trip to the heap for it, nor where one does") {
  disk_bench d;
  const auto bytes = pattern(512, 1);
  d.disk.yields = false;
  const auto trips = [&] {
    for (int i = 0; i < 4; i++)
      d.bench.must(d.r->write(0, bytes));
    const unsigned long before = heap_trips();
    for (int i = 0; i < 16; i++)
      d.bench.must(d.r->write(0, bytes));
    return heap_trips() - before;
  };
  const unsigned long with_one = trips();
  d.b->remove("b");
  CHECK(trips() == with_one);
}

TEST_CASE("bitmap: another granularity is given to one without a set bit, and to no other") {
  disk_bench d;
  const auto regrain = [&](u64 granularity) {
    bitmap_change c = d.b->change(kind::set_granularity, "b");
    c.granularity = granularity;
    return d.b->error_of(std::move(c));
  };
  d.b->disable("b");
  CHECK(regrain(4096).empty());
  CHECK(d.b->read("b").granularity() == 4096);
  CHECK_FALSE(d.b->read("b").is_enabled()); // it is the same in everything else
  d.b->enable("b");
  CHECK(regrain(3000).contains("a power of two"));
  d.bench.must(d.r->write(5000, pattern(1, 1)));
  CHECK(regrain(512).ends_with(
      "4096 bytes are dirty; its granularity can be set before the first is, or after it was "
      "cleared"));
  CHECK(d.b->dirty("b") == runs{{4096, 4096}});
  d.b->clear("b");
  {
    const bitmap_hold held(*d.top, *d.b->find("b"), "this test");
    CHECK(regrain(512).contains("is in use by this test"));
  }
  CHECK(regrain(512).empty());
  // Together with something that fails it is undone.
  bitmap_change c = d.b->change(kind::set_granularity, "b");
  c.granularity = 8192;
  CHECK_FALSE(d.b->attempt({c, d.b->change(kind::clear, "nothing")}));
  CHECK(d.b->read("b").granularity() == 512);
}

TEST_CASE("bitmap: a list finds each by its name, whatever was added and taken") {
  disk_bench d;
  for (int i = 0; i < 100; i++)
    d.b->add("n" + std::to_string(i));
  const u64 version = d.top->bitmaps().version();
  for (int i = 0; i < 100; i += 3)
    d.b->remove("n" + std::to_string(i));
  CHECK(d.top->bitmaps().version() != version);
  for (int i = 0; i < 100; i++) {
    const dirty_bitmap* const found = d.b->find("n" + std::to_string(i));
    CHECK((found == nullptr) == (i % 3 == 0));
    if (found != nullptr)
      CHECK(found->name() == "n" + std::to_string(i));
  }
  d.bench.must(d.r->write(0, pattern(1, 1)));
  CHECK(d.b->read("n1").dirty_bytes() != 0);
}
