// SPDX-License-Identifier: MIT
// Opening, closing, permissions and drain.
#include "graph/model/graph.h"

#include "drivers/format/raw/raw.h"
#include "graph/model/permission_plan.h"
#include "tests/unit/lib/graph_bench.h"

using namespace bgfs;
using namespace bgfs::test;
namespace pm = bgfs::permission;

TEST_CASE("the permissions of an edge follow its role") {
  struct row {
    const char* what;
    child_role roles;
    bool is_read_only;
    permissions parents;
    permissions expected;
  };
  constexpr permission_set cr = pm::consistent_read, w = pm::write, wu = pm::write_unchanged,
                           rz = pm::resize;
  // The worked examples of the reference, section 1.15.
  const row rows[] = {
      {"writable format on its file",
       role::image,
       false,
       {cr | w, cr | w | wu},
       {cr | w | rz, cr | wu}},
      {"read-only format on its file", role::image, true, {cr, pm::all}, {cr, cr | wu}},
      {"overlay whose user shares writing",
       role::backing,
       false,
       {cr | w, cr | w | wu},
       {cr, pm::all}},
      {"overlay whose user does not", role::backing, false, {cr | w, cr | wu}, {cr, cr | wu}},
      {"pass-through", role::filtered | role::primary, false, {cr | w, pm::all}, {cr | w, pm::all}},
      {"data child", role::data, false, {cr | w, cr | w | wu | rz}, {cr | w | rz, cr | w | wu}},
      {"data child of a user that writes unchanged",
       role::data,
       false,
       {wu, pm::all},
       {wu | w | rz, cr | w | wu}},
  };
  for (const row& r : rows) {
    CAPTURE(r.what);
    const permissions p = permissions_by_role(r.roles, r.is_read_only, r.parents);
    CHECK(p.used == r.expected.used);
    CHECK(p.shared == r.expected.shared);
  }
}

TEST_CASE("a root that does not share writing keeps a second writer out, and names both") {
  graph_bench bench({&raw_driver_type});
  bench.disk("d", 4096);
  node& top = bench.open(spec_builder("top", raw_driver_type).child("file", disk_spec("d")));
  root& first = bench.attach(top, {pm::consistent_read | pm::write, pm::consistent_read});
  const auto second = bench.run(bench.graph().attach("export 'b'", top, may_write));
  REQUIRE(!second);
  CHECK(second.error().message() ==
        "export 'b' cannot use node 'top' (raw) for 'write': test does not share that; make one of "
        "them read-only");
  CHECK(second.error().kind() == error_kind::busy);
  CHECK(top.cumulative_permissions().used == (pm::consistent_read | pm::write));
  bench.detach(first);
  bench.attach(top, may_write);
}

TEST_CASE("a failed open closes what it opened and leaves the rest") {
  graph_bench bench({&raw_driver_type});
  bench.disk("d", 4096);
  const auto missing =
      bench.try_open(spec_builder("top", raw_driver_type).child("file", disk_spec("nowhere")));
  REQUIRE(!missing);
  CHECK(missing.error().message() == "node '#block000' (memory): there is no test disk 'nowhere'");
  CHECK(bench.graph().nodes().empty());
  bench.open(spec_builder("base", raw_driver_type).child("file", disk_spec("d")));
  const auto again =
      bench.try_open(spec_builder("base", raw_driver_type).child("file", disk_spec("d")));
  REQUIRE(!again);
  CHECK(again.error().message() == "there is a node 'base' already");
  const auto dangling = bench.try_open(spec_builder("x", raw_driver_type).child("file", "nobody"));
  REQUIRE(!dangling);
  CHECK(dangling.error().message() == "node 'x' needs 'nobody' as its 'file', which is not open");
  CHECK(bench.graph().nodes().size() == 2);
}

TEST_CASE("contradicting generic options are refused") {
  graph_bench bench({&raw_driver_type});
  bench.disk("d", 4096);
  const auto shared = bench.try_open(
      spec_builder("a", raw_driver_type).set("force-share", true).child("file", disk_spec("d")));
  REQUIRE(!shared);
  CHECK(shared.error().message() ==
        "node 'a': 'force-share' needs 'read-only: true': two writers destroy an image");
  const auto zeroes = bench.try_open(spec_builder("a", raw_driver_type)
                                         .set("detect-zeroes", "unmap")
                                         .child("file", disk_spec("d")));
  REQUIRE(!zeroes);
  CHECK(zeroes.error().message() == "node 'a': 'detect-zeroes: unmap' needs 'discard: unmap'");
}

TEST_CASE("children inherit what the reference says they do") {
  node_options parent;
  parent.is_read_only = false;
  parent.cache_direct = true;
  parent.force_share = false;
  const options none;
  graph_bench bench({&raw_driver_type});
  bench.disk("d", 4096);
  node& top = bench.open(spec_builder("top", raw_driver_type)
                             .set("read-only", true)
                             .set("cache.direct", true)
                             .child("file", disk_spec("d")));
  const node& file = top.child("file")->child();
  CHECK(file.is_read_only());
  CHECK(file.generic().cache_direct);
  CHECK(file.generic().discard == discard_mode::unmap);
  CHECK(top.generic().discard == discard_mode::ignore);
}

TEST_CASE("a node in use cannot be closed") {
  graph_bench bench({&raw_driver_type});
  bench.disk("d", 4096);
  node& top = bench.open(spec_builder("top", raw_driver_type).child("file", disk_spec("d")));
  root& r = bench.attach(top);
  const result<> refused = bench.run(bench.graph().close(top));
  REQUIRE(!refused);
  CHECK(refused.error().message() == "node 'top' (raw) is in use by test");
  bench.detach(r);
  bench.must(bench.graph().close(top));
  CHECK(bench.graph().nodes().empty()); // the file was defined in place and went with it
}

namespace {

struct drain_notes {
  bool saw_write_during_drain = false;
  bool is_drained = false;
  int writes_done = 0;
};
task<void> keep_writing(root& r, drain_notes& notes) {
  for (int i = 0; i < 50; i++) {
    const auto data = pattern(512, static_cast<u64>(i));
    co_await r.write(0, data);
    if (notes.is_drained)
      notes.saw_write_during_drain = true;
    notes.writes_done++;
  }
}
task<void> look_while_drained(memory_disk& disk, drain_notes& notes) {
  notes.is_drained = true;
  const u64 before = disk.operations;
  for (int i = 0; i < 5; i++)
    co_await sleep_for(std::chrono::microseconds(200));
  CHECK(disk.operations == before);
  notes.is_drained = false;
}
task<void> drain_once(graph& g, node& n, memory_disk& disk, drain_notes& notes) {
  co_await with(g.drain(n), [&](graph::drained&) { return look_while_drained(disk, notes); });
}
task<void> drain_under_load(graph& g, node& n, root& r, memory_disk& disk, drain_notes& notes) {
  std::vector<task<void>> tasks;
  tasks.push_back(keep_writing(r, notes));
  tasks.push_back(drain_once(g, n, disk, notes));
  co_await when_all(std::move(tasks));
}

} // namespace

TEST_CASE("a drain waits for what is in flight and holds back the rest until it ends") {
  for (u64 seed = 1; seed < 10; seed++) {
    graph_bench bench({&raw_driver_type}, {.shuffle_seed = seed});
    memory_disk& disk = bench.disk("d", 4096);
    node& top = bench.open(spec_builder("top", raw_driver_type).child("file", disk_spec("d")));
    root& r = bench.attach(top);
    drain_notes notes;
    bench.must(drain_under_load(bench.graph(), top, r, disk, notes));
    CHECK(notes.writes_done == 50);
    CHECK_FALSE(notes.saw_write_during_drain);
  }
}

TEST_CASE("a failed close is reported, and everything is closed all the same") {
  graph_bench bench({&raw_driver_type});
  memory_disk& disk = bench.disk("d", 4096);
  node& top = bench.open(spec_builder("top", raw_driver_type).child("file", disk_spec("d")));
  root& r = bench.attach(top);
  bench.must(r.write(0, pattern(512, 1)));
  disk.fault = [](std::string_view what, byte_range) -> std::optional<error> {
    if (what == "flush")
      return error(error_kind::io, "the disk does not answer");
    return std::nullopt;
  };
  const result<> closed = bench.close_all();
  REQUIRE(!closed);
  CHECK(closed.error().message() == "the disk does not answer");
  CHECK(bench.graph().nodes().empty());
}

TEST_CASE("failing every operation of open, write and close once leaves no frame and no node") {
  for (u64 nth = 0; nth < 12; nth++) {
    CAPTURE(nth);
    graph_bench bench({&raw_driver_type});
    memory_disk& disk = bench.disk("d", 8192);
    disk.request_alignment = 512;
    u64 count = 0;
    disk.fault = [&](std::string_view, byte_range) -> std::optional<error> {
      if (count++ == nth)
        return error(error_kind::io, "injected");
      return std::nullopt;
    };
    const auto top =
        bench.try_open(spec_builder("top", raw_driver_type).child("file", disk_spec("d")));
    if (top) {
      root& r = bench.attach(**top);
      (void)bench.run(r.write(100, pattern(1000, 1)));
      (void)bench.run(r.flush());
      (void)bench.run(r.write_zeroes({50, 2000}));
      CHECK((*top)->requests().in_flight() == 0);
    }
    (void)bench.close_all();
    CHECK(bench.graph().nodes().empty());
  }
}
