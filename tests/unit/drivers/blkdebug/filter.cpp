// SPDX-License-Identifier: MIT
#include "drivers/filter/blkdebug/blkdebug.h"
#include "drivers/format/raw/raw.h"
#include "graph/io/spawn.h"
#include "graph/model/resolve.h"
#include "tests/unit/lib/background.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

value rule(std::initializer_list<std::pair<std::string, value>> members) {
  value v = value::map();
  for (const auto& [name, member] : members)
    v.set(name, member);
  return v;
}

struct events : event_sink {
  std::vector<std::string> seen;
  void emit(std::string_view type, value data) override {
    if (type.starts_with("BLKDEBUG"))
      seen.push_back(fmt::format("{} {} {} {}", type, *data.find("node-name")->as_text(),
                                 *data.find("event")->as_text(), *data.find("tag")->as_text()));
  }
};

// A filter over a memory disk of 16 KiB.
struct filter_bench {
  graph_bench bench{{&blkdebug_driver_type, &raw_driver_type}};
  memory_disk& disk = bench.disk("d", 16 * KiB);
  spec_builder spec{"bug", blkdebug_driver_type};
  node* bug = nullptr;

  filter_bench() {
    disk.bytes = pattern(16 * KiB, 1);
    spec.child("image", disk_spec("d")).set("discard", "unmap");
  }
  filter_bench& inject(value v) {
    injects.push_back(std::move(v));
    spec.set("inject-error", injects);
    return *this;
  }
  root& open(permissions wanted = may_resize) {
    bug = &bench.open(spec);
    return bench.attach(*bug, wanted);
  }
  [[nodiscard]] debuggable& debugger() const { return *bug->as_debuggable(); }
  std::string refusal() {
    result<node*> opened = bench.try_open(spec);
    return opened ? "accepted" : opened.error().message();
  }
  value::list injects;
};

int errno_of(const result<>& r) {
  return r ? 0 : r.error().os_error();
}

task<void> nothing() {
  co_return;
}

std::string schema_refusal(const value& given) {
  const option_schema* schemas[] = {blkdebug_driver_type.open_options};
  const result<options> all = validate_options(schemas, given, {}, "node 'bug'");
  return all ? "accepted" : all.error().message();
}

} // namespace

TEST_CASE("blkdebug: without rules it shows its child, and adds nothing") {
  filter_bench b;
  root& r = b.open();
  CHECK(read_all(b.bench, r) == b.disk.bytes);
  const auto bytes = pattern(1000, 2);
  b.bench.must(r.write(100, bytes));
  b.bench.must(r.write_zeroes({4096, 4096}));
  b.bench.must(r.discard({8192, 4096}));
  b.bench.must(r.truncate(20 * KiB));
  b.bench.must(r.flush());
  CHECK(std::equal(bytes.begin(), bytes.end(), b.disk.bytes.begin() + 100));
  CHECK(b.disk.bytes.size() == 20 * KiB);
  CHECK(r.length() == 20 * KiB);
  CHECK(b.disk.bytes[4096] == std::byte{0});
  CHECK(b.disk.bytes[8192] == std::byte{0xdd});
}

TEST_CASE("blkdebug: each kind of request fails by its rule, and no other") {
  for (const std::string_view kind :
       {"read", "write", "write-zeroes", "discard", "flush", "block-status"}) {
    CAPTURE(kind);
    filter_bench b;
    b.inject(rule({{"event", "none"}, {"iotype", kind}, {"errno", 28}}));
    root& r = b.open();
    std::vector<std::byte> bytes(512);
    const auto expect = [&](std::string_view what, const result<>& outcome) {
      CHECK_MESSAGE(errno_of(outcome) == (what == kind ? 28 : 0), what);
    };
    expect("read", b.bench.run(r.read(0, bytes)));
    expect("write", b.bench.run(r.write(0, bytes)));
    expect("write-zeroes", b.bench.run(r.write_zeroes({512, 512}, write_flag::no_fallback)));
    expect("discard", b.bench.run(r.discard({1024, 512})));
    expect("flush", b.bench.run(r.flush()));
    const result<block_status> status = b.bench.run(r.status_above({0, 512}));
    CHECK(status.has_value() == (kind != "block-status"));
    if (kind == "flush") {
      CHECK(!b.bench.run(r.flush()));
      // Nothing was flushed: closing says so, too.
      CHECK(b.bench.close_all().error().message().contains("a flush of 0 bytes"));
    }
  }
}

TEST_CASE("blkdebug: an injected error says whose it is") {
  filter_bench b;
  b.inject(rule({{"event", "none"}, {"sector", 3}, {"once", true}}));
  root& r = b.open();
  std::vector<std::byte> bytes(1024);
  b.bench.must(r.read(0, bytes));
  const result<> failed = b.bench.run(r.read(1024, bytes));
  REQUIRE(!failed);
  CHECK(failed.error().message() ==
        "a rule of node 'bug' makes a read of 1024 bytes at 0x400 fail: Input/output error");
  b.bench.must(r.read(1024, bytes)); // once
  const value counted = b.bug->instance().statistics_specific();
  CHECK(*counted.find("injected-errors")->as_integer() == 1);
}

TEST_CASE("blkdebug: a delay comes first, also where nothing fails") {
  filter_bench b;
  b.inject(rule({{"event", "none"}, {"errno", 0}, {"delay-ns", 2'000'000}, {"iotype", "read"}}));
  root& r = b.open();
  std::vector<std::byte> bytes(512);
  const auto before = std::chrono::steady_clock::now();
  b.bench.must(r.read(0, bytes));
  CHECK(std::chrono::steady_clock::now() - before >= std::chrono::milliseconds(2));
}

TEST_CASE("blkdebug: immediately means without a turn of the loop") {
  for (const bool is_immediate : {false, true}) {
    filter_bench b;
    b.inject(rule({{"event", "none"}, {"immediately", is_immediate}}));
    root& r = b.open();
    background tasks(b.bench);
    std::vector<std::byte> bytes(512);
    bool has_ended = false;
    const auto read_and_tell = [](root& from, std::span<std::byte> into,
                                  bool& ended) -> task<void> {
      (void)co_await as_result(from.read(0, into));
      ended = true;
    };
    const auto look = [](background& group, task<void> t, bool& ended,
                         bool& at_once) -> task<void> {
      group.spawn(std::move(t));
      co_await sleep_for(std::chrono::nanoseconds(0)); // it has begun
      at_once = ended;
    };
    bool at_once = false;
    b.bench.must(look(tasks, read_and_tell(r, bytes, has_ended), has_ended, at_once));
    if (is_immediate)
      CHECK(at_once);
    tasks.settle();
    CHECK(has_ended);
  }
}

TEST_CASE("blkdebug: limits are asked of requests") {
  filter_bench b;
  b.spec.set("align", 512)
      .set("max-transfer", 1024)
      .set("opt-write-zero", 2048)
      .set("max-write-zero", 4096)
      .set("opt-discard", 1024)
      .set("max-discard", 2048);
  b.disk.keeps_log = true;
  root& r = b.open();
  const block_limits& l = b.bug->limits();
  CHECK(l.request_alignment == 512);
  CHECK(l.max_transfer == 1024);
  CHECK(l.write_zeroes_alignment == 2048);
  CHECK(l.max_write_zeroes == 4096);
  CHECK(l.discard_alignment == 1024);
  CHECK(l.max_discard == 2048);
  const auto bytes = pattern(1000, 5);
  b.bench.must(r.write(1, bytes));
  for (const memory_event& e : b.disk.log) {
    CHECK(e.range.is_aligned_to(512));
    CHECK(e.range.length <= 1024);
  }
  CHECK(std::equal(bytes.begin(), bytes.end(), b.disk.bytes.begin() + 1));
  b.disk.log.clear();
  b.bench.must(r.discard({512, 8192}));
  for (const memory_event& e : b.disk.log)
    CHECK(e.range.length <= 2048);
}

TEST_CASE("blkdebug: limits that cannot be are refused") {
  const auto refusal = [](std::string name, u64 wanted, u64 align = 0) {
    filter_bench b;
    if (align != 0)
      b.spec.set("align", align);
    b.spec.set(std::move(name), wanted);
    return b.refusal();
  };
  CHECK(refusal("align", 3).contains("'align' is 3, which is no power of two (512, 4096, ...)"));
  for (const char* name :
       {"max-transfer", "opt-write-zero", "max-write-zero", "opt-discard", "max-discard"}) {
    CHECK(refusal(name, 5000, 4096)
              .contains(fmt::format("'{}' is 5000, which is no multiple of the 4096 bytes that "
                                    "requests are aligned to",
                                    name)));
    CHECK(refusal(name, 8192, 4096) == "accepted");
  }
  filter_bench b; // nor may they be finer than the child's
  b.disk.request_alignment = 512;
  b.spec.set("max-transfer", 256);
  CHECK(b.refusal().contains("no multiple of the 512 bytes"));
}

TEST_CASE("blkdebug: options are lists, also with numbers for names") {
  CHECK(schema_refusal(rule({{"inject-error", value::list{rule({{"event", "none"}})}}})) ==
        "accepted");
  CHECK(schema_refusal(rule({{"inject-error", rule({{"0", rule({{"event", "none"}})},
                                                    {"1", rule({{"event", "l2_load"}})}})}})) ==
        "accepted");
  CHECK(schema_refusal(rule({{"inject-error", rule({{"1", rule({{"event", "none"}})}})}})) ==
        "node 'bug': option 'inject-error' is a list of 1 entries, but has none with the number 0; "
        "they are numbered from 0");
  CHECK(schema_refusal(rule({{"inject-error", "l2_load"}})) ==
        "node 'bug': option 'inject-error' is a list, not text");
  CHECK(schema_refusal(rule({{"inject-error", value::list{"l2_load"}}})) ==
        "node 'bug': entry 0 of 'inject-error': options must be a map, not text");
  CHECK(schema_refusal(rule({{"inject-error", value::list{rule({{"errno", 5}})}}})) ==
        "node 'bug': entry 0 of 'inject-error': a rule of 'inject-error' needs option 'event': "
        "what makes the rule come into force");
  CHECK(schema_refusal(rule({{"set-state", value::list{rule({{"event", "none"}, {"x", 5}})}}})) ==
        "node 'bug': entry 0 of 'set-state': option 'x' is not known to a rule of 'set-state'; it "
        "has event, new_state, state");
  CHECK(schema_refusal(rule({{"take-child-perms", value::list{"write", "graph-mod"}}})) ==
        "node 'bug': option 'take-child-perms' is one of consistent-read, write, write-unchanged, "
        "resize, not 'graph-mod'");
  CHECK(schema_refusal(rule({{"take-child-perms", "write"}})) ==
        "node 'bug': option 'take-child-perms' is a list, not text");
}

TEST_CASE("blkdebug: permissions are taken, and kept from others") {
  filter_bench b;
  b.bench.open(spec_builder("below", raw_driver_type).child("file", disk_spec("d")));
  b.spec.children.clear();
  b.spec.child("image", "below")
      .set("take-child-perms", value::list{"write", "resize"})
      .set("unshare-child-perms", value::list{"write"});
  b.bug = &b.bench.open(b.spec);
  const permissions all = b.bench.graph().find("below")->cumulative_permissions();
  CHECK((all.used & (permission::write | permission::resize)) ==
        (permission::write | permission::resize));
  CHECK((all.shared & permission::write) == 0);
  const result<> refused = b.bench.run([](graph& g, node& n) -> task<void> {
    auto other = co_await g.attach("other", n, may_write);
    co_await other->release();
  }(b.bench.graph(), *b.bench.graph().find("below")));
  CHECK(!refused);
}

TEST_CASE("blkdebug: a breakpoint keeps the next request that gets there until it is resumed") {
  filter_bench b;
  events seen;
  root& r = b.open();
  b.bench.graph().set_events(&seen);
  background tasks(b.bench);
  const auto bytes = pattern(512, 9);
  b.debugger().set_breakpoint({debug_event::pwritev, "A"});
  CHECK(b.debugger().breakpoints().size() == 1);
  tasks.start(r.write(0, bytes));
  CHECK(b.debugger().is_suspended("A"));
  CHECK(b.debugger().breakpoints().empty());
  CHECK(b.debugger().suspended().size() == 1);
  b.bench.must(r.write(1024, bytes)); // it keeps one
  CHECK(!std::equal(bytes.begin(), bytes.end(), b.disk.bytes.begin()));
  CHECK(!b.debugger().resume("B"));
  CHECK(b.debugger().resume("A"));
  CHECK(!b.debugger().resume("A"));
  CHECK(tasks.finish().has_value());
  CHECK(std::equal(bytes.begin(), bytes.end(), b.disk.bytes.begin()));
  CHECK(seen.seen == std::vector<std::string>{"BLKDEBUG_SUSPENDED bug pwritev A",
                                              "BLKDEBUG_RESUMED bug pwritev A"});
  b.bench.graph().set_events(nullptr);
}

TEST_CASE("blkdebug: of two breakpoints at one event each has to let go, the newest comes first") {
  filter_bench b;
  root& r = b.open();
  background tasks(b.bench);
  std::vector<std::byte> bytes(512);
  b.debugger().set_breakpoint({debug_event::pwritev, "A"});
  b.debugger().set_breakpoint({debug_event::pwritev, "B"});
  tasks.start(r.write(0, bytes));
  const auto kept = b.debugger().suspended();
  REQUIRE(kept.size() == 2);
  CHECK(kept[0].tag == "B");
  CHECK(kept[1].tag == "A");
  CHECK(b.debugger().resume("B"));
  tasks.settle();
  CHECK(tasks.running() == 1);
  CHECK(b.debugger().resume("A"));
  CHECK(tasks.finish().has_value());
}

TEST_CASE("blkdebug: removing takes breakpoints away and lets go whom they keep") {
  filter_bench b;
  root& r = b.open();
  background tasks(b.bench);
  std::vector<std::byte> bytes(512);
  CHECK(!b.debugger().remove_breakpoint("A"));
  b.debugger().set_breakpoint({debug_event::pwritev, "A"});
  tasks.start(r.write(0, bytes));
  CHECK(b.debugger().is_suspended("A"));
  CHECK(!b.debugger().remove_breakpoint("A")); // it had been reached
  CHECK(tasks.finish().has_value());
  b.debugger().set_breakpoint({debug_event::pwritev, "A"});
  CHECK(b.debugger().remove_breakpoint("A"));
  b.bench.must(r.write(0, bytes));
}

TEST_CASE("blkdebug: the events of an unaligned write, of a zero write and of copying up") {
  filter_bench b;
  b.spec.set("align", 512);
  events seen;
  root& r = b.open();
  b.bench.graph().set_events(&seen);
  const auto run_through = [&](task<void> work) {
    for (const debug_event_description& e : debug_event_table)
      b.debugger().set_breakpoint({e.event, "t"});
    background tasks(b.bench);
    tasks.start(std::move(work));
    while (tasks.running() > 0) {
      (void)b.debugger().resume("t");
      tasks.settle();
    }
    (void)b.debugger().remove_breakpoint("t");
    std::vector<std::string> names;
    for (const std::string& line : std::exchange(seen.seen, {}))
      if (line.starts_with("BLKDEBUG_SUSPENDED bug "))
        names.push_back(line.substr(23, line.size() - 25));
    return names;
  };
  using names = std::vector<std::string>;
  const auto bytes = pattern(2000, 3);
  CHECK(run_through(r.write(0, std::span(bytes).first(512))) == names{"pwritev", "pwritev_done"});
  CHECK(run_through(r.write(1, std::span(bytes).first(2))) ==
        names{"pwritev_rmw_head", "pwritev_rmw_tail", "pwritev_rmw_after_head",
              "pwritev_rmw_after_tail", "pwritev", "pwritev_done"});
  CHECK(run_through(r.write(1, bytes)) == names{"pwritev_rmw_head", "pwritev_rmw_after_head",
                                                "pwritev_rmw_tail", "pwritev_rmw_after_tail",
                                                "pwritev", "pwritev_done"});
  CHECK(run_through(r.write(512, std::span(bytes).first(513))) ==
        names{"pwritev_rmw_tail", "pwritev_rmw_after_tail", "pwritev", "pwritev_done"});
  CHECK(run_through(r.write_zeroes({0, 1024})) == names{"pwritev_zero", "pwritev_done"});
  CHECK(run_through(r.flush()).empty()); // that of the node above
  b.bench.graph().set_events(nullptr);
}

TEST_CASE(
    "blkdebug: a format over it tells of reads, writes and flushes; a filter in between is no "
    "obstacle") {
  filter_bench b;
  b.inject(rule({{"event", "read_aio"}, {"errno", 6}, {"once", true}, {"iotype", "read"}}))
      .inject(rule({{"event", "write_aio"}, {"errno", 28}, {"once", true}, {"iotype", "write"}}))
      .inject(rule({{"event", "flush_to_disk"}, {"errno", 5}, {"iotype", "flush"}}));
  b.bug = &b.bench.open(b.spec);
  b.bench.open(spec_builder("outer", blkdebug_driver_type).child("image", "bug"));
  node& top = b.bench.open(spec_builder("raw", raw_driver_type).child("file", "bug"));
  CHECK(top.find_debuggable() == b.bug->as_debuggable());
  CHECK(top.listener() == nullptr); // a format is not told of what is done above it
  root& r = b.bench.attach(top);
  std::vector<std::byte> bytes(512);
  CHECK(errno_of(b.bench.run(r.read(0, bytes))) == 6);
  CHECK(errno_of(b.bench.run(r.read(0, bytes))) == 0);
  CHECK(errno_of(b.bench.run(r.write(0, bytes))) == 28);
  CHECK(errno_of(b.bench.run(r.write(0, bytes))) == 0);
  CHECK(errno_of(b.bench.run(r.flush())) == 5);
  b.bench.detach(r);
  (void)b.bench.close_all(); // it says that it could not flush
}

TEST_CASE("blkdebug: no lease leads past it") {
  filter_bench b;
  b.disk.is_direct = true;
  memory_disk& other = b.bench.disk("e", 16 * KiB);
  other.is_direct = true;
  b.open();
  node& over = b.bench.open(spec_builder("over", raw_driver_type).child("file", "bug"));
  node& plain = b.bench.open(spec_builder("plain", raw_driver_type).child("file", disk_spec("e")));
  CHECK(resolve_extent(plain, {0, 512}).has_value());
  CHECK(!resolve_extent(over, {0, 512}).has_value());
  CHECK(!over.whole_host_file(false).has_value());
}

TEST_CASE("blkdebug: a drain, a root that goes and a close let everybody pass") {
  filter_bench b;
  root& r = b.open();
  std::vector<std::byte> bytes(512);
  for (int round = 0; round < 2; round++) {
    background tasks(b.bench);
    b.debugger().set_breakpoint({debug_event::pwritev, "A"});
    b.debugger().set_breakpoint({debug_event::pwritev_done, "B"});
    tasks.start(r.write(0, bytes));
    CHECK(b.debugger().is_suspended("A"));
    if (round == 0) {
      b.bench.must(with(b.bench.graph().drain(*b.bug), [&](graph::drained&) {
        CHECK(tasks.running() == 0);
        CHECK(b.debugger().suspended().empty());
        return nothing();
      }));
      CHECK(b.debugger().breakpoints().size() == 1); // B was passed, and not reached
    } else {
      b.bench.detach(r);
      CHECK(tasks.running() == 0);
    }
    CHECK(b.debugger().remove_breakpoint("B"));
    CHECK(tasks.finish().has_value());
  }
  // A flush of what is above, while it is closed.
  node& top = b.bench.open(spec_builder("raw", raw_driver_type).child("file", "bug"));
  b.debugger().set_breakpoint({debug_event::flush_to_os, "C"});
  b.bench.must(b.bench.graph().close(top));
  CHECK(b.debugger().breakpoints().size() == 1);
}

TEST_CASE("blkdebug: a request that is cancelled at a breakpoint ends there") {
  filter_bench b;
  root& r = b.open();
  task_group group(b.bench.home());
  std::vector<std::byte> bytes(512);
  b.debugger().set_breakpoint({debug_event::pwritev, "A"});
  group.spawn(r.write(0, bytes));
  {
    background turns(b.bench);
    turns.settle();
  }
  CHECK(b.debugger().is_suspended("A"));
  group.request_stop();
  const result<> ended = b.bench.run(group.join());
  REQUIRE(!ended);
  CHECK(ended.error().kind() == error_kind::cancelled);
  CHECK(!b.debugger().is_suspended("A"));
}

TEST_CASE("blkdebug: it becomes read-only and writable again as it is, and has other rules anew") {
  filter_bench b;
  b.open();
  const auto outcome = [&](const options& given) {
    auto* const face = dynamic_cast<reopenable*>(&b.bug->instance());
    const result<> prepared = b.bench.run(face->prepare_reopen(given, b.bug->generic()));
    if (prepared)
      face->commit_reopen();
    else
      face->abort_reopen();
    return prepared ? "accepted" : prepared.error().message();
  };
  CHECK(outcome(b.bug->given()) == "accepted");
  b.inject(rule({{"event", "none"}}));
  CHECK(outcome(b.spec.build().given) ==
        "option 'inject-error' of driver 'blkdebug' cannot change while the node is open; it has "
        "to be opened anew");
}
