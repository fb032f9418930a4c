// SPDX-License-Identifier: MIT
// Which requests run beside each other, and which wait.
#include "drivers/format/raw/raw.h"
#include "tests/unit/lib/background.h"
#include "tests/unit/lib/layer_driver.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct row {
  byte_range a;
  u64 serialise_a; // 0: not
  byte_range b;
  u64 serialise_b;
  bool conflict;
};

// Holds what a predicate chooses until it is opened.
struct gate_for {
  event opened;
  std::function<bool(std::string_view, byte_range)> chooses;
  u64 held = 0;
  explicit gate_for(memory_disk& disk, std::function<bool(std::string_view, byte_range)> which)
      : chooses(std::move(which)), disk_(disk) {
    disk.hold = [this](std::string_view what, byte_range r) -> event* {
      if (!chooses(what, r))
        return nullptr;
      held++;
      return &opened;
    };
  }
  ~gate_for() { disk_.hold = nullptr; }

private:
  memory_disk& disk_;
};

spec_builder plain_disk(const std::string& name) {
  return disk_spec(name).set("discard", "unmap");
}

} // namespace

TEST_CASE("two requests conflict if they overlap and one of them serialises") {
  const row rows[] = {
      {{0, 512}, 0, {0, 512}, 0, false},     {{0, 512}, 1, {0, 512}, 0, true},
      {{0, 512}, 0, {0, 512}, 1, true},      {{0, 512}, 1, {512, 512}, 1, false},
      {{0, 100}, 512, {511, 1}, 0, true},    {{0, 100}, 1, {511, 1}, 0, false},
      {{0, 100}, 512, {512, 1}, 512, false}, {{700, 1}, 4096, {100, 1}, 0, true},
      {{4095, 2}, 4096, {8191, 1}, 0, true}, {{4095, 2}, 4096, {8192, 1}, 4096, false},
      {{1000, 0}, 1, {500, 1000}, 0, true}, // within
      {{1000, 0}, 1, {0, 1000}, 0, false},  // and beside
  };
  for (const row& r : rows) {
    CAPTURE(r.a.offset);
    CAPTURE(r.b.offset);
    request_list list;
    tracked_request a(list, request_type::write, r.a);
    if (r.serialise_a != 0)
      a.make_serialising(r.serialise_a);
    tracked_request b(list, request_type::write, r.b);
    if (r.serialise_b != 0)
      b.make_serialising(r.serialise_b);
    CHECK(b.check_conflicts().has_value() == !r.conflict);
    CHECK(a.check_conflicts().has_value() == !r.conflict); // whoever came first
    CHECK(list.has_serialising() == (r.serialise_a + r.serialise_b > 0));
  }
}

TEST_CASE("serialising over more keeps what was serialised over before") {
  request_list list;
  tracked_request a(list, request_type::write, {5000, 10});
  CHECK(a.overlap_range() == byte_range{5000, 10});
  a.make_serialising(512);
  CHECK(a.overlap_range() == byte_range{4608, 512});
  a.make_serialising(64);
  CHECK(a.overlap_range() == byte_range{4608, 512});
  a.serialise_over({9000, 1});
  CHECK(a.overlap_range() == byte_range::between(4608, 9001));
  CHECK(a.range() == byte_range{5000, 10});
}

TEST_CASE("a busy range says by what") {
  request_list list;
  tracked_request a(list, request_type::discard, {0x1000, 0x200});
  a.make_serialising(1);
  const tracked_request b(list, request_type::write, {0x1000, 0x100});
  const result<> busy = b.check_conflicts();
  REQUIRE(!busy);
  CHECK(busy.error().kind() == error_kind::busy);
  CHECK(busy.error().message() ==
        "256 bytes at 0x1000 are in use by a discard of 512 bytes at 0x1000");
}

namespace {

task<void> serialised(request_list& list, byte_range range, std::vector<int>& order, int id,
                      event& go_on) {
  tracked_request r(list, request_type::write, range);
  r.make_serialising(1);
  co_await r.wait_for_conflicts();
  order.push_back(id);
  co_await go_on.wait();
}

// Takes its first range, and another one in the middle, as a driver may.
task<void> enlarged(request_list& list, byte_range first, byte_range then, event& go_on,
                    int& ended) {
  tracked_request r(list, request_type::write, first);
  r.make_serialising(1);
  co_await r.wait_for_conflicts();
  list.enter_driver(r);
  CHECK(list.entering() == &r);
  co_await go_on.wait();
  r.serialise_over(then);
  co_await r.wait_for_conflicts();
  ended++;
}

} // namespace

TEST_CASE("a request waits for the one in its way, not for one that waits itself") {
  for (u64 seed = 1; seed <= 20; seed++) {
    graph_bench bench({}, {.shuffle_seed = seed});
    request_list list;
    std::vector<int> order;
    event first, others;
    others.set();
    background tasks(bench);
    tasks.start(serialised(list, {0, 100}, order, 1, first));
    tasks.start(serialised(list, {50, 100}, order, 2, others)); // waits for 1
    CHECK(order == std::vector{1});
    CHECK(list.first()->next()->is_waiting());
    CHECK(list.first()->next()->waiting_for() == list.first());
    tasks.start(serialised(list, {120, 100}, order, 3, others)); // overlaps only 2
    CHECK(order == std::vector{1, 3});
    first.set();
    CHECK(tasks.finish().has_value());
    CHECK(order == std::vector{1, 3, 2});
    CHECK(list.in_flight() == 0);
    CHECK_FALSE(list.has_serialising());
  }
}

TEST_CASE("requests that take more while they run and get in each other's way both end") {
  for (u64 seed = 1; seed <= 20; seed++) {
    graph_bench bench({}, {.shuffle_seed = seed});
    request_list list;
    event go_on;
    int ended = 0;
    background tasks(bench);
    for (u64 i = 0; i < 4; i++)
      tasks.start(enlarged(list, {i * 1000, 100}, {0, 10000}, go_on, ended));
    go_on.set();
    CHECK(tasks.finish().has_value());
    CHECK(ended == 4);
  }
}

TEST_CASE("a newcomer does not pass by one that waits in its driver, half done") {
  graph_bench bench({});
  request_list list;
  event go_on, blocker_ends, none;
  int ended = 0;
  std::vector<int> order;
  background tasks(bench);
  tasks.start(serialised(list, {5000, 100}, order, 1, blocker_ends));
  tasks.start(enlarged(list, {0, 512}, {0, 6000}, go_on, ended));
  go_on.set();
  tasks.settle();
  CHECK(list.first()->next()->waiting_for() == list.first());
  none.set();
  tasks.start(serialised(list, {100, 100}, order, 2, none)); // a read, modify and write in between
  CHECK(order == std::vector{1});
  blocker_ends.set();
  CHECK(tasks.finish().has_value());
  CHECK(order == std::vector{1, 2});
  CHECK(ended == 1);
}

TEST_CASE("an interrupted wait leaves nothing behind") {
  graph_bench bench({});
  request_list list;
  event go_on;
  std::vector<int> order;
  background tasks(bench);
  tasks.start(serialised(list, {0, 100}, order, 1, go_on));
  {
    task_group other(bench.home());
    other.spawn(serialised(list, {0, 100}, order, 2, go_on));
    tasks.settle();
    CHECK(list.in_flight() == 2);
    other.request_stop();
    CHECK(bench.run(other.join()).error().kind() == error_kind::cancelled);
  }
  CHECK(list.in_flight() == 1);
  CHECK_FALSE(list.first()->is_waiting());
  go_on.set();
  CHECK(tasks.finish().has_value());
  CHECK(order == std::vector{1});
}

TEST_CASE("a write that must not wait is busy instead, and needs to serialise and whole blocks") {
  graph_bench bench({});
  memory_disk& disk = bench.disk("d", 64 * KiB);
  disk.request_alignment = 512;
  node& top = bench.open(plain_disk("d"));
  root& r = bench.attach(top);
  constexpr write_flags both = write_flag::serialising | write_flag::no_wait;
  const auto data = pattern(512, 1);
  bench.must(r.write(0, data, both)); // nobody is in the way
  CHECK(bench.run(r.write(0, data, write_flag::no_wait)).error().message() ==
        "only a serialising write can do without waiting");
  const result<> unaligned = bench.run(r.write(10, data, both));
  REQUIRE(!unaligned);
  CHECK(unaligned.error().kind() == error_kind::invalid_argument);
  CHECK(unaligned.error().message().ends_with(
      "a write of 512 bytes at 0xa cannot do without waiting: node '#block000' (memory) takes "
      "blocks of 512"));
  gate_for gate(disk, [](std::string_view what, byte_range at) {
    return what == "write" && at.offset == 1024;
  });
  const auto other = pattern(512, 2);
  background tasks(bench);
  tasks.start(r.write(1024, other));
  const result<> busy = bench.run(r.write(1024, data, both));
  REQUIRE(!busy);
  CHECK(busy.error().kind() == error_kind::busy);
  const result<> zeroes = bench.run(r.write_zeroes({1024, 512}, both));
  REQUIRE(!zeroes);
  CHECK(zeroes.error().kind() == error_kind::busy);
  bench.must(r.write(2048, data, both)); // elsewhere
  gate.opened.set();
  CHECK(tasks.finish().has_value());
  bench.must(r.write(1024, data, both));
  CHECK(disk.flags_seen == 0); // the driver has no business with them
}

TEST_CASE("a serialising write takes whole clusters, other writes only where blocks are cut") {
  graph_bench bench({&layer_driver_type});
  test_layer layer(bench, "top", 64 * KiB);
  layer.state.cluster_size = 4096;
  node& top = bench.open(layer.spec());
  root& r = bench.attach(top);
  gate_for gate(layer.disk, [](std::string_view what, byte_range) { return what == "write"; });
  const auto data = pattern(512, 1);
  background tasks(bench);
  tasks.start(r.write(512, data, write_flag::serialising));
  const tracked_request* first = top.requests().first();
  CHECK(first->is_serialising());
  CHECK(first->overlap_range() == byte_range{0, 4096});
  tasks.start(r.write(2048, data)); // the same cluster
  CHECK(first->next()->waiting_for() == first);
  tasks.start(r.write(8192, data));
  CHECK_FALSE(first->next()->next()->is_waiting());
  CHECK_FALSE(first->next()->next()->is_serialising());
  gate.opened.set();
  CHECK(tasks.finish().has_value());
}

TEST_CASE(
    "a growing truncate tracks the new part, a shrinking one nothing; both hold off the end") {
  graph_bench bench({});
  memory_disk& disk = bench.disk("d", 4096);
  node& top = bench.open(plain_disk("d"));
  root& r = bench.attach(top, may_resize);
  gate_for gate(disk, [](std::string_view what, byte_range) { return what == "truncate"; });
  for (const u64 length : {u64{8192}, u64{1024}}) {
    CAPTURE(length);
    const u64 before = top.length();
    gate.opened.reset();
    const auto data = pattern(512, 7);
    background tasks(bench);
    tasks.start(r.truncate(length));
    const tracked_request* truncate = top.requests().first();
    CHECK(truncate->type() == request_type::truncate);
    CHECK(truncate->range() ==
          (length > before ? byte_range::between(before, length) : byte_range{length, 0}));
    CHECK(truncate->is_serialising());
    std::vector<std::byte> kept(512), cut(512);
    bench.must(r.read(0, kept)); // what stays can be read
    if (length > before) {
      tasks.start(r.write(before, data)); // grows it, too
      CHECK(truncate->next()->waiting_for() == truncate);
    } else {
      background reader(bench);
      reader.start(r.read(2048, cut));
      CHECK(truncate->next()->waiting_for() == truncate);
      gate.opened.set();
      const result<> gone = reader.finish(); // what it was for is no longer there
      REQUIRE(!gone);
      CHECK(gone.error().kind() == error_kind::out_of_range);
    }
    gate.opened.set();
    CHECK(tasks.finish().has_value());
    CHECK(top.length() == length);
  }
}

TEST_CASE("of two truncates the second begins when the first has ended") {
  for (u64 seed = 1; seed <= 10; seed++) {
    graph_bench bench({&raw_driver_type}, {.shuffle_seed = seed});
    memory_disk& disk = bench.disk("d", 4096);
    node& top = bench.open(spec_builder("top", raw_driver_type).child("file", disk_spec("d")));
    root& r = bench.attach(top, may_resize);
    int inside = 0;
    bool was_alone = true;
    disk.hold = [&](std::string_view what, byte_range) -> event* {
      if (what == "truncate")
        was_alone = was_alone && ++inside == 1;
      return nullptr;
    };
    disk.fault = [&](std::string_view what, byte_range) -> std::optional<error> {
      if (what == "truncate")
        inside--;
      return std::nullopt;
    };
    background tasks(bench);
    const u64 lengths[] = {8192, 512, 100000, 0, 4096, 12345};
    for (const u64 length : lengths)
      tasks.start(r.truncate(length));
    CHECK(tasks.finish().has_value());
    CHECK(was_alone);
    CHECK(top.length() == disk.bytes.size());
    CHECK(std::ranges::find(lengths, top.length()) != std::end(lengths));
    disk.hold = nullptr;
  }
}

TEST_CASE("the padding that is cut off takes nobody's bytes with it") {
  graph_bench bench({});
  memory_disk& disk = bench.disk("d", 1000);
  disk.request_alignment = 512;
  node& top = bench.open(plain_disk("d"));
  root& r = bench.attach(top, may_resize);
  gate_for gate(disk, [](std::string_view what, byte_range) { return what == "truncate"; });
  const auto small = pattern(10, 1);
  const auto whole = pattern(512, 2);
  background tasks(bench);
  tasks.start(r.write(1000, small)); // padded to 1024, about to be cut to 1010
  CHECK(gate.held == 1);
  CHECK(disk.bytes.size() == 1024);
  tasks.start(r.write(2048, whole));
  gate.opened.set();
  CHECK(tasks.finish().has_value());
  REQUIRE(disk.bytes.size() == 2560);
  CHECK(top.length() == 2560);
  CHECK(std::equal(small.begin(), small.end(), disk.bytes.begin() + 1000));
  CHECK(std::equal(whole.begin(), whole.end(), disk.bytes.begin() + 2048));
}

TEST_CASE("a flush while a truncate runs does not make the next flush free") {
  graph_bench bench({});
  memory_disk& disk = bench.disk("d", 4096);
  disk.keeps_log = true;
  root& r = bench.attach(bench.open(plain_disk("d")), may_resize);
  gate_for gate(disk, [](std::string_view what, byte_range) { return what == "truncate"; });
  background tasks(bench);
  tasks.start(r.truncate(8192));
  bench.must(r.flush());
  gate.opened.set();
  CHECK(tasks.finish().has_value());
  bench.must(r.flush());
  CHECK(disk.log.back().what == memory_event::kind::flush);
}

TEST_CASE("a driver makes its own request exclude what is behind it") {
  graph_bench bench({});
  memory_disk& disk = bench.disk("d", 4096);
  disk.zeroes_exclusively = true;
  node& top = bench.open(plain_disk("d"));
  root& r = bench.attach(top, may_resize);
  gate_for gate(disk, [](std::string_view what, byte_range) { return what == "zero"; });
  const auto data = pattern(512, 1);
  background tasks(bench);
  tasks.start(r.write_zeroes({4096, 512}));
  const tracked_request* zero = top.requests().first();
  CHECK(zero->is_serialising());
  CHECK(zero->range() == byte_range{4096, 512});
  CHECK(zero->overlap_range().end() == device_length_max);
  CHECK(top.requests().entering() == zero);
  tasks.start(r.write(8192, data)); // does not overlap what was asked for
  CHECK(zero->next()->waiting_for() == zero);
  bench.must(r.write(0, data));
  gate.opened.set();
  CHECK(tasks.finish().has_value());
  CHECK(top.requests().entering() == nullptr);
  CHECK(disk.bytes.size() == 8704);
}

TEST_CASE("who waited for a shrinking truncate is refused what is no longer there") {
  graph_bench bench({&layer_driver_type});
  test_layer layer(bench, "top", 8192);
  layer.state.blocks[15] = layer_state::block::data;
  node& top = bench.open(layer.spec());
  root& r = bench.attach(top, may_resize);
  const auto data = pattern(512, 1);
  std::vector<std::byte> bytes(512);
  const std::function<task<void>()> requests[] = {
      [&] { return r.write(4096, data); }, [&] { return r.write_zeroes({4096, 512}); },
      [&] { return r.discard({4096, 512}); }, [&] { return r.read(4096, bytes); },
      [&] { return r.top().copy_up({4096, 512}, bytes); }};
  for (const auto& request : requests) {
    if (top.length() != 8192)
      bench.must(r.truncate(8192));
    event go_on;
    layer.state.hold_truncate = &go_on;
    background tasks(bench), others(bench);
    tasks.start(r.truncate(2048));
    others.start(request());
    CHECK(top.requests().first()->next()->is_waiting());
    layer.state.hold_truncate = nullptr;
    go_on.set();
    CHECK(tasks.finish().has_value());
    const result<> refused = others.finish();
    REQUIRE(!refused);
    CHECK(refused.error().kind() == error_kind::out_of_range);
    CHECK(layer.state.blocks.empty());
  }
}

TEST_CASE("a truncate that waited for a shrinking one holds off what that has cut") {
  graph_bench bench({});
  memory_disk& disk = bench.disk("d", 4096);
  node& top = bench.open(plain_disk("d"));
  root& r = bench.attach(top, may_resize);
  event shrinks, grows;
  disk.hold = [&](std::string_view, byte_range range) {
    return range.length == 512 ? &shrinks : &grows;
  };
  background tasks(bench);
  tasks.start(r.truncate(512));
  tasks.start(r.truncate(8192));
  CHECK(top.requests().first()->next()->waiting_for() == top.requests().first());
  shrinks.set();
  tasks.settle();
  REQUIRE(top.requests().in_flight() == 1);
  CHECK(top.length() == 512);
  CHECK(top.requests().first()->overlap_range().offset == 512);
  grows.set();
  CHECK(tasks.finish().has_value());
  CHECK(top.length() == 8192);
  disk.hold = nullptr;
}
