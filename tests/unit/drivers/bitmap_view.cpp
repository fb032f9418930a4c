// SPDX-License-Identifier: MIT
// What a dirty bitmap marks, as a disk.
#include "drivers/format/bitmap_view/bitmap_view.h"

#include "drivers/format/raw/raw.h"
#include "tests/unit/lib/bitmap_actions.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct view_bench {
  graph_bench bench{{&raw_driver_type, &bitmap_view_driver_type}};
  root* live;
  std::optional<bitmap_actions> b;

  view_bench() {
    bench.disk("d", 64 * KiB);
    live = &bench.attach(
        bench.open(spec_builder("live", raw_driver_type).child("file", disk_spec("d"))),
        may_resize);
    b.emplace(bench, live->top());
    bench.must(live->write(0, pattern(64 * KiB, 1)));
    b->add("b", 4096);
  }
  [[nodiscard]] static spec_builder spec(std::string bitmap) {
    return spec_builder("view", bitmap_view_driver_type)
        .set("read-only", true)
        .set("bitmap", std::move(bitmap))
        .child("file", "live");
  }
  [[nodiscard]] std::string refusal(const spec_builder& s) {
    const auto opened = bench.try_open(s);
    return opened ? std::string() : opened.error().message();
  }
};

} // namespace

TEST_CASE("bitmap-view: the live data where it is dirty, zeroes elsewhere, as it changes") {
  view_bench v;
  root& view = v.bench.attach(v.bench.open(view_bench::spec("b")), may_read);
  CHECK(view.length() == 64 * KiB);
  CHECK(read_all(v.bench, view) == std::vector<std::byte>(64 * KiB));
  const block_status whole = v.bench.must(view.status_above({0, 64 * KiB}));
  CHECK(whole.is_zero);
  CHECK(whole.length == 64 * KiB);

  v.bench.must(v.live->write(10'000, pattern(5000, 2)));
  const std::vector<std::byte> now = read_all(v.bench, *v.live);
  std::vector<std::byte> wanted(64 * KiB);
  std::ranges::copy(std::span(now).subspan(8192, 8192), wanted.begin() + 8192);
  CHECK(read_all(v.bench, view) == wanted);
  CHECK(v.bench.must(view.status_above({0, 64 * KiB})).length == 8192);
  const block_status dirty = v.bench.must(view.status_above({8192, 64 * KiB - 8192}));
  CHECK(dirty.is_data);
  CHECK(dirty.length == 8192);
}

TEST_CASE("bitmap-view: while it is open its bitmap is not changed and the disk keeps its length") {
  view_bench v;
  node& view = v.bench.open(view_bench::spec("b"));
  using kind = bitmap_change::kind;
  for (const kind what : {kind::clear, kind::disable, kind::remove})
    CHECK(v.b->error_of(v.b->change(what, "b")).contains("is in use by node 'view'"));
  const result<> resized = v.bench.run(v.live->truncate(128 * KiB));
  REQUIRE_FALSE(resized.has_value());
  CHECK(resized.error().kind() == error_kind::busy);
  v.bench.must(v.bench.graph().close(view));
  v.b->clear("b");
  v.bench.must(v.live->truncate(128 * KiB));
}

TEST_CASE("bitmap-view: what cannot be shown is told why") {
  view_bench v;
  CHECK(v.refusal(view_bench::spec("c")).contains("has no bitmap 'c'"));
  CHECK(v.refusal(view_bench::spec("b").set("read-only", false))
            .contains("open it with 'read-only: true'"));
}
