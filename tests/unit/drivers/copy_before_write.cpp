// SPDX-License-Identifier: MIT
#include "drivers/filter/copy_before_write/copy_before_write.h"

#include "drivers/format/qcow2/qcow2.h"
#include "drivers/format/raw/raw.h"
#include "drivers/format/snapshot_access/snapshot_access.h"
#include "graph/model/edit.h"
#include "tests/unit/lib/background.h"

#include <cerrno>
#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 cluster = 64 * KiB;
constexpr u64 disk_length = 20 * cluster + 777;

// The live disk, what is kept of its instant, and the view of it:
//   live (root) -> front (copy-before-write) -> disk "live", and disk "kept"
//   frozen (root) -> view (snapshot-access) -> front
struct instant_bench {
  graph_bench bench;
  memory_disk& live_disk;
  memory_disk& kept_disk;
  std::vector<std::byte> before;
  node* front = nullptr;
  node* view = nullptr;
  root* live = nullptr;
  root* frozen = nullptr;

  explicit instant_bench(loop_options how = {})
      : bench({&copy_before_write_driver_type, &snapshot_access_driver_type, &raw_driver_type},
              how),
        live_disk(bench.disk("live", disk_length)), kept_disk(bench.disk("kept", disk_length)) {
    before = pattern(disk_length, 9);
    live_disk.bytes = before;
  }
  // Roots go before the nodes that they are over.
  ~instant_bench() {
    if (frozen != nullptr)
      bench.detach(*frozen);
  }
  spec_builder front_spec(const value& options = value::map()) {
    spec_builder s("front", copy_before_write_driver_type);
    for (const auto& [key, v] : *options.as_map())
      s.set(key, v);
    return s.set("discard", "unmap")
        .child("file", disk_spec("live"))
        .child("target", disk_spec("kept"));
  }
  void open(const value& options = value::map()) {
    front = &bench.open(front_spec(options));
    view = &bench.open(view_spec());
    live = &bench.attach(*front, may_resize);
    frozen = &bench.attach(*view, may_read);
  }
  static spec_builder view_spec() {
    spec_builder s("view", snapshot_access_driver_type);
    return s.set("read-only", true).child("file", "front");
  }
  std::string error_of(task<void> t) {
    const result<> done = bench.run(std::move(t));
    return done ? std::string() : done.error().message();
  }
  // Bytes of the live disk that were kept.
  u64 kept() {
    const value counted = front->instance().statistics_specific();
    return static_cast<u64>(*counted.find("kept-bytes")->as_integer());
  }
};

value with_options(const char* name, value v) {
  value options = value::map();
  options.set(name, std::move(v));
  return options;
}

task<void> expect_read(root& r, u64 offset, std::span<const std::byte> expected) {
  std::vector<std::byte> bytes(expected.size());
  co_await r.read(offset, bytes);
  if (!std::ranges::equal(bytes, expected))
    co_await fail(error_kind::io, "the instant has changed at {:#x}", offset);
}

// The pieces that the status names make up the disk, and zeroes are zeroes.
task<void> expect_status(root& r, std::span<const std::byte> expected) {
  u64 at = 0;
  while (at < expected.size()) {
    const block_status s = co_await r.status_above({at, expected.size() - at});
    const auto part = expected.subspan(at, s.length);
    if (s.is_zero && !std::ranges::all_of(part, [](std::byte b) { return b == std::byte{0}; }))
      co_await fail(error_kind::io, "the instant has data where its status says zero, {:#x}", at);
    at += s.length;
  }
}

} // namespace

TEST_CASE("copy-before-write: the instant stays whatever is written, while it is read") {
  for (u64 seed = 1; seed <= 12; seed++) {
    CAPTURE(seed);
    instant_bench b({.shuffle_seed = seed});
    std::mt19937_64 random(seed);
    std::fill_n(b.before.begin() + 5 * cluster, 3 * cluster, std::byte{0});
    b.live_disk.bytes = b.before;
    b.open();
    std::vector<std::byte> model = b.before;
    for (int round = 0; round < 20; round++) {
      // Each writer has a part of its own; readers of the instant go everywhere.
      background running(b.bench);
      std::vector<std::vector<std::byte>> bytes;
      bytes.reserve(4);
      const u64 part = model.size() / 4;
      for (u64 i = 0; i < 4; i++) {
        const u64 offset = i * part + random() % (part / 2);
        const u64 length = 1 + random() % (part / 2);
        const auto at = model.begin() + static_cast<i64>(offset);
        switch (random() % 4) {
        case 0:
          running.spawn(b.live->write_zeroes({offset, length}, write_flag::may_unmap));
          std::fill_n(at, length, std::byte{0});
          break;
        default:
          bytes.push_back(pattern(length, random()));
          running.spawn(b.live->write(offset, bytes.back()));
          std::ranges::copy(bytes.back(), at);
        }
        const u64 from = random() % disk_length;
        const u64 count = std::min<u64>(1 + random() % (3 * cluster), disk_length - from);
        running.spawn(expect_read(*b.frozen, from, std::span(b.before).subspan(from, count)));
        running.spawn(expect_status(*b.frozen, b.before));
      }
      const result<> done = running.finish();
      REQUIRE_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
      if (round % 7 == 6) { // the live disk gets shorter, or longer
        const u64 length = disk_length / 2 + random() % disk_length;
        b.bench.must(b.live->truncate(length));
        model.resize(length);
      }
    }
    CHECK(b.frozen->length() == disk_length);
    CHECK(read_all(b.bench, *b.frozen) == b.before);
    CHECK(read_all(b.bench, *b.live) == model);
  }
}

TEST_CASE("copy-before-write: each cluster is kept once, and only what is going to change") {
  instant_bench b;
  b.open();
  CHECK(b.kept() == 0);
  b.kept_disk.keeps_log = true;
  b.bench.must(b.live->write(cluster + 5, pattern(10, 1)));
  b.bench.must(b.live->write(cluster + 500, pattern(10, 2)));
  CHECK(b.kept() == cluster);
  CHECK(b.kept_disk.log.size() == 1);
  CHECK(b.kept_disk.log.front().range == byte_range{cluster, cluster});
  b.bench.must(b.live->write(3 * cluster - 1, pattern(2, 3)));
  CHECK(b.kept() == 3 * cluster);
  b.bench.must(b.live->write(disk_length, pattern(5000, 4))); // was not there
  CHECK(b.kept() == 3 * cluster);
  const auto same = std::span(b.before).subspan(7 * cluster, 100);
  b.bench.must(b.live->write(7 * cluster, same, write_flag::unchanged));
  CHECK(b.kept() == 3 * cluster);
  b.bench.must(b.live->discard({9 * cluster, cluster}));
  b.bench.must(b.live->write_zeroes({11 * cluster, 10}));
  CHECK(b.kept() == 5 * cluster);
  b.bench.must(b.live->truncate(20 * cluster));
  CHECK(b.kept() == 5 * cluster + 777);
  CHECK(read_all(b.bench, *b.frozen) == b.before);
}

TEST_CASE("copy-before-write: what is being read of the instant is not overwritten") {
  instant_bench b;
  b.open();
  event go_on;
  bool is_held = false;
  b.live_disk.hold = [&](std::string_view what, byte_range range) -> event* {
    const bool is_frozen_read = what == "read" && range.length == 1234;
    is_held = is_held || is_frozen_read;
    return is_frozen_read ? &go_on : nullptr;
  };
  bool is_written = false;
  b.live_disk.fault = [&](std::string_view what, byte_range) -> std::optional<error> {
    is_written = is_written || what == "write";
    return std::nullopt;
  };
  const std::vector<std::byte> bytes = pattern(cluster, 7);
  background running(b.bench);
  running.spawn(expect_read(*b.frozen, 100, std::span(b.before).subspan(100, 1234)));
  while (!is_held)
    b.bench.home().run_once();
  running.spawn(b.live->write(0, bytes));
  for (int i = 0; i < 50; i++)
    b.bench.must(sleep_for(std::chrono::nanoseconds(0)));
  CHECK(!is_written);
  CHECK(b.kept() == cluster);
  go_on.set();
  const result<> done = running.finish();
  REQUIRE_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
  CHECK(is_written);
  b.live_disk.hold = nullptr;
  b.live_disk.fault = nullptr;
  CHECK(read_all(b.bench, *b.frozen) == b.before);
}

TEST_CASE("copy-before-write: what cannot be kept fails the write, or ends the instant") {
  for (const bool gives_up : {false, true}) {
    CAPTURE(gives_up);
    instant_bench b;
    b.open(with_options("on-cbw-error", gives_up ? "break-snapshot" : "break-guest-write"));
    b.bench.must(b.live->write(0, pattern(100, 1)));
    b.kept_disk.fault = [](std::string_view what, byte_range) -> std::optional<error> {
      if (what == "write" || what == "copy")
        return error::from_errno(ENOSPC, "the test says so");
      return std::nullopt;
    };
    const std::vector<std::byte> live = read_all(b.bench, *b.live);
    const std::string failed = b.error_of(b.live->write(5 * cluster, pattern(100, 2)));
    std::vector<std::byte> some(100);
    if (gives_up) {
      CHECK(failed == "");
      const std::string gone = b.error_of(b.frozen->read(0, some));
      CHECK_MESSAGE(gone.contains("keeping what the instant holds at 0x50000"), gone);
      CHECK(gone.contains("the test says so: No space left on device"));
      b.kept_disk.fault = nullptr;
      CHECK(b.error_of(b.frozen->read(9 * cluster, some)) == gone); // for good
      CHECK(!b.front->as_frozen_disk()->check_frozen().has_value());
      const value stats = b.front->instance().statistics_specific();
      CHECK(stats.find("given-up")->as_text()->contains("No space left"));
      const u64 kept = b.kept();
      b.bench.must(b.live->write(7 * cluster, pattern(100, 3)));
      CHECK(b.kept() == kept);
    } else {
      CHECK(failed.contains("the test says so"));
      CHECK(read_all(b.bench, *b.live) == live);
      CHECK(read_all(b.bench, *b.frozen) == b.before);
      b.kept_disk.fault = nullptr;
      b.bench.must(b.live->write(5 * cluster, pattern(100, 2)));
      CHECK(read_all(b.bench, *b.frozen) == b.before);
    }
  }
}

TEST_CASE("copy-before-write: no more is kept than kept-max says") {
  instant_bench b;
  b.open(with_options("kept-max", u64{3 * cluster}));
  b.bench.must(b.live->write(0, pattern(3 * cluster, 1)));
  CHECK(b.error_of(b.live->write(4 * cluster, pattern(1, 1)))
            .contains("196608 bytes of old data are kept, and 'kept-max' allows 196608"));
  b.bench.must(b.live->write(0, pattern(3 * cluster, 2)));
  CHECK(read_all(b.bench, *b.frozen) == b.before);
}

TEST_CASE("copy-before-write: what nobody wants is not kept, and cannot be read") {
  instant_bench b;
  b.open();
  b.bench.must(b.live->write(cluster, pattern(cluster, 1)));
  frozen_disk& instant = *b.front->as_frozen_disk();
  b.bench.must(instant.discard_frozen({cluster / 2, 3 * cluster})); // wholly: clusters 1 and 2
  b.bench.must(b.live->write(2 * cluster, pattern(cluster, 2)));
  CHECK(b.kept() == cluster);
  std::vector<std::byte> some(100);
  for (const u64 offset : {cluster, 2 * cluster, 2 * cluster + 99}) {
    const result<> refused = b.bench.run(b.frozen->read(offset, some));
    REQUIRE(!refused.has_value());
    CHECK(refused.error().os_error() == EACCES);
    CHECK(refused.error().message().contains("of the instant were discarded"));
    CHECK(!b.bench.run(b.frozen->status_above({offset, 100})).has_value());
  }
  b.bench.must(expect_read(*b.frozen, 0, std::span(b.before).first(cluster)));
  b.bench.must(expect_read(*b.frozen, 3 * cluster, std::span(b.before).subspan(3 * cluster, 999)));
}

TEST_CASE("copy-before-write: what cannot be opened says why, and a view keeps the filter") {
  instant_bench b;
  b.kept_disk.bytes.resize(disk_length - 1);
  const auto error_of_open = [&b](const spec_builder& s) {
    const result<node*> opened = b.bench.try_open(s);
    return opened ? std::string() : opened.error().message();
  };
  CHECK(error_of_open(b.front_spec()).contains("has 1311496 bytes; to keep any of the 1311497"));
  b.kept_disk.bytes.resize(disk_length);
  CHECK(error_of_open(b.front_spec(with_options("min-cluster-size", u64{100000})))
            .contains("'min-cluster-size' is 100000, which is no power of two"));
  b.open();
  spec_builder other("other", snapshot_access_driver_type);
  other.set("read-only", true).child("file", disk_spec("live"));
  CHECK(error_of_open(other).contains("keeps no instant that could be shown"));
  const result<> refused = b.bench.run(remove_filter(b.bench.graph(), *b.front));
  REQUIRE(!refused.has_value());
  CHECK(refused.error().kind() == error_kind::busy);
  CHECK(refused.error().message().contains("what it keeps is open as node 'view'"));
}

namespace {

constexpr u64 slots = 40;

// Writer `w` of `count` puts increasing numbers into its slots, one after the other.
task<void> stamp(root& live, u64 w, u64 count, const bool& is_over, u64& last) {
  u64 n = 0;
  while (!is_over) {
    n++;
    const std::vector<u64> number(512, n);
    const u64 slot = w + count * (n % (slots / count));
    co_await live.write(slot * 4096, std::as_bytes(std::span(number)));
    last = n;
  }
}

struct writers_end {
  bool& is_over;
  ~writers_end() { is_over = true; }
};

u64 number_at(std::span<const std::byte> bytes, u64 slot) {
  u64 n = 0;
  std::memcpy(&n, bytes.data() + slot * 4096, sizeof n);
  return n;
}

} // namespace

TEST_CASE("copy-before-write: put over a disk that is written to it keeps one instant") {
  for (u64 seed = 1; seed <= 10; seed++) {
    CAPTURE(seed);
    instant_bench b({.shuffle_seed = seed});
    b.live_disk.bytes.assign(disk_length, std::byte{0});
    spec_builder raw("top", raw_driver_type);
    node& top = b.bench.open(raw.child("file", disk_spec("live")));
    root& live = b.bench.attach(top, may_write);
    constexpr u64 writers = 4;
    bool is_over = false;
    u64 last[writers] = {};
    background running(b.bench);
    const writers_end end{is_over}; // also if something fails
    for (u64 w = 0; w < writers; w++)
      running.spawn(stamp(live, w, writers, is_over, last[w]));
    for (u64 i = 0; i < 30 + seed * 7; i++)
      b.bench.must(sleep_for(std::chrono::nanoseconds(0)));
    spec_builder filter("front", copy_before_write_driver_type);
    filter.child("file", "top").child("target", disk_spec("kept"));
    b.front = b.bench.must(insert_filter(b.bench.graph(), top, filter.build()));
    u64 at_instant[writers];
    std::ranges::copy(last, at_instant);
    root& frozen = b.bench.attach(b.bench.open(b.view_spec()), may_read);
    for (int i = 0; i < 200; i++)
      b.bench.must(sleep_for(std::chrono::nanoseconds(0)));
    const std::vector<std::byte> seen = read_all(b.bench, frozen);
    is_over = true;
    const result<> done = running.finish();
    REQUIRE_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
    for (u64 w = 0; w < writers; w++) {
      // All that was answered before is there, and nothing that began later: of each slot the last
      // number up to one.
      u64 newest = 0;
      for (u64 slot = w; slot < slots; slot += writers)
        newest = std::max(newest, number_at(seen, slot));
      CHECK(newest <= at_instant[w] + 1);
      CHECK(newest + 1 >= at_instant[w]);
      constexpr u64 own = slots / writers;
      for (u64 n = newest; n > 0 && n + own > newest; n--)
        CHECK(number_at(seen, w + writers * (n % own)) == n);
    }
    b.bench.detach(frozen);
    b.bench.must(b.bench.graph().close(*b.bench.graph().find("view")));
    b.bench.must(remove_filter(b.bench.graph(), *b.front));
    CHECK(&live.top() == &top);
    b.bench.must(live.write(0, pattern(100, 1)));
  }
}
