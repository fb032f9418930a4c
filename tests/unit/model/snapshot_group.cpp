// SPDX-License-Identifier: MIT
// One snapshot of several images at one instant, and what is undone when one of them cannot.
#include "graph/model/snapshot_group.h"

#include "tests/unit/drivers/qcow2/snapshot_bench.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 length = 256 << 10;

// Images a, b and c.
struct group_bench {
  qcow2_bench b{std::vector<const driver_type*>{&internal_snapshot_driver_type}};
  std::vector<memory_disk*> disks;
  std::vector<root*> roots;

  group_bench() {
    for (const char* name : {"a", "b", "c"}) {
      disks.push_back(&b.create(name, length, {{"cluster_size", "4K"}}));
      roots.push_back(&b.open(name));
    }
  }
  [[nodiscard]] std::vector<node*> images() const {
    std::vector<node*> all;
    for (root* r : roots)
      all.push_back(&r->top());
    return all;
  }
  [[nodiscard]] std::vector<std::size_t> counts() {
    std::vector<std::size_t> all;
    for (root* r : roots)
      all.push_back(b.bench.graph().snapshots(r->top())->size());
    return all;
  }
  result<std::vector<std::string>> create(std::string name) {
    return b.bench.run(create_snapshots(images(), {.name = std::move(name)}));
  }
};

// Writes rising numbers into each image in turn, until it is told to stop.
task<void> stamp(std::vector<root*> roots, const event& stop) {
  for (unsigned char number = 1; !stop.is_set(); number++) {
    for (root* r : roots) {
      const std::vector<std::byte> bytes(512, std::byte{number});
      co_await r->write(0, bytes);
    }
  }
}

task<void> create_some(group_bench& g, event& stop) {
  for (int i = 0; i < 20; i++)
    (void)co_await create_snapshots(g.images(), {.name = "s" + std::to_string(i)});
  stop.set();
}

} // namespace

TEST_CASE("snapshots of a group are of one instant: no image is ahead of one written before it") {
  group_bench g;
  event stop;
  std::vector<task<void>> tasks;
  tasks.push_back(stamp(g.roots, stop));
  tasks.push_back(create_some(g, stop));
  g.b.bench.must(when_all(std::move(tasks)));
  for (int i = 0; i < 20; i++) {
    std::vector<int> seen;
    for (root* r : g.roots) {
      const auto view = g.b.bench.must(
          r->top().as_snapshottable()->open_snapshot(named("s" + std::to_string(i)), "this test"));
      std::vector<std::byte> bytes(512);
      const auto e = g.b.bench.must(view->map({0, 512}));
      if (e.kind == extent_kind::data)
        g.b.bench.must(const_cast<edge*>(e.where)->read(e.offset, bytes));
      seen.push_back(std::to_integer<int>(bytes[0]));
    }
    const auto behind = [](int first, int second) { return (first - second) & 0xff; };
    CHECK(behind(seen[0], seen[1]) + behind(seen[1], seen[2]) <= 1);
  }
}

TEST_CASE("a group's snapshot that one image refuses is in none of them") {
  group_bench g;
  CHECK(g.create("first")->size() == 3);
  CHECK(g.counts() == std::vector<std::size_t>{1, 1, 1});
  // The last one fails at each of its writes in turn.
  for (u64 skipped = 0;; skipped++) {
    u64 writes = 0;
    g.disks[2]->fault = [&](std::string_view what, byte_range) -> std::optional<error> {
      if (what != "write" || writes++ != skipped)
        return std::nullopt;
      return error(error_kind::io, "the medium failed");
    };
    const auto made = g.create("second");
    g.disks[2]->fault = nullptr;
    if (made)
      break;
    CHECK(made.error().message().starts_with(
        "creating snapshot 'second' of 3 images at one instant: "));
    CHECK(g.counts()[0] == 1);
    CHECK(g.counts()[1] == 1);
    if (g.counts()[2] != 1 || g.roots[2]->top().is_broken() || skipped > 40)
      break; // what failed was the end of it: the image stopped itself
  }
  CHECK(g.counts()[0] <= 2);
}

TEST_CASE("a group's snapshot that cannot be taken back is named") {
  group_bench g;
  g.disks[2]->fault = [&](std::string_view what, byte_range) -> std::optional<error> {
    if (what != "write")
      return std::nullopt;
    // From now on the first image cannot be written either.
    g.disks[0]->fault = [](std::string_view w, byte_range) -> std::optional<error> {
      if (w != "write")
        return std::nullopt;
      return error(error_kind::io, "the first medium failed");
    };
    return error(error_kind::io, "the medium failed");
  };
  const auto made = g.create("s");
  REQUIRE_FALSE(made.has_value());
  CHECK(made.error().message().contains("(its id 1 is left in node 'img-a'"));
  CHECK(made.error().message().contains("the medium failed"));
  CHECK(g.counts()[1] == 0);
  g.disks[0]->fault = nullptr;
  g.disks[2]->fault = nullptr;
}

TEST_CASE("a group's snapshot has a name like any other, and needs images that may be written") {
  group_bench g;
  CHECK(g.create("a/b").error().kind() == error_kind::invalid_argument);
  CHECK(g.counts() == std::vector<std::size_t>{0, 0, 0});
}

TEST_CASE("internal-snapshot: vm-state shows the state of a machine as a disk of its own") {
  qcow2_bench b{std::vector<const driver_type*>{&internal_snapshot_driver_type}};
  b.create("d", length, {{"cluster_size", "4K"}});
  b.open("d");
  const snapshot_actions actions{b.bench, b.top()};
  const auto state = pattern(70'001, 3);
  b.bench.must(b.top().write_vmstate(0, state));
  actions.create("s", state.size());
  node& shown = b.bench.open(view_spec("state", "img-d", named("s")).set("vm-state", true));
  root& way = b.bench.attach(shown, may_read);
  CHECK(way.length() == state.size());
  CHECK(read_all(b.bench, way) == state);
  const result<> removed = actions.try_remove(named("s"));
  REQUIRE_FALSE(removed.has_value());
  CHECK(removed.error().message().contains("is being read by node 'state'"));
}
