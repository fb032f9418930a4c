// SPDX-License-Identifier: MIT
#include "graph/io/task.h"

#include "graph/io/sync.h"
#include "graph/io/with.h"

#include <doctest/doctest.h>

using namespace bgfs;

namespace {

struct bench {
  std::unique_ptr<loop> home = *loop::create();
  i64 frames = live_frame_count();
  ~bench() { CHECK(live_frame_count() == frames); }
};

using journal = std::vector<std::string>;

// Notes when it goes, to see in which order frames are destroyed.
struct noted {
  journal& notes;
  std::string what;
  ~noted() { notes.push_back("gone " + what); }
};

task<int> give(int v) {
  co_return v;
}
task<int> deny() {
  co_return fail(error_kind::busy, "the door is shut");
}
result<int> plain(bool ok) {
  if (ok)
    return 7;
  return fail(error_kind::not_found, "nothing there");
}

task<int> innermost(journal& notes) {
  const noted mine{notes, "innermost"};
  const int v = co_await deny();
  notes.push_back("never");
  co_return v;
}
task<int> middle(journal& notes) {
  const noted mine{notes, "middle"};
  const int v = co_await context(innermost(notes), "opening door {}", 3);
  co_return v;
}
task<void> catcher(journal& notes) {
  const result<int> r = co_await as_result(middle(notes));
  notes.push_back(r ? "value" : r.error().message());
}

} // namespace

TEST_CASE("a task gives its value to the one that awaits it") {
  bench b;
  CHECK(*run_to_end(*b.home, give(5)) == 5);
}

TEST_CASE("an error ends every task up to the catcher, innermost first, before the catcher runs") {
  bench b;
  journal notes;
  CHECK(run_to_end(*b.home, catcher(notes)));
  CHECK(notes == journal{"gone innermost", "gone middle", "opening door 3: the door is shut"});
}

namespace {
task<int> unwrap(bool ok, bool& went_on) {
  const int v = co_await plain(ok);
  went_on = true;
  co_return v;
}
task<void> give_up(bool& went_on) {
  co_await fail(error_kind::no_space, "{} is full", "the disk");
  went_on = true;
}
} // namespace

TEST_CASE("awaiting a result unwraps it or ends the task") {
  bench b;
  bool went_on = false;
  CHECK(*run_to_end(*b.home, unwrap(true, went_on)) == 7);
  CHECK(went_on);
  went_on = false;
  const result<int> failed = run_to_end(*b.home, unwrap(false, went_on));
  CHECK(failed.error().kind() == error_kind::not_found);
  CHECK_FALSE(went_on);
}

TEST_CASE("awaiting a failure ends the task") {
  bench b;
  bool went_on = false;
  const result<> failed = run_to_end(*b.home, give_up(went_on));
  CHECK(failed.error().message() == "the disk is full");
  CHECK_FALSE(went_on);
}

TEST_CASE("a task that is never awaited does nothing and leaves no frame") {
  bench b;
  journal notes;
  {
    const task<int> unused = middle(notes);
  }
  CHECK(notes.empty());
}

namespace {

struct lamp {
  journal& notes;
  bool breaks = false;
  task<void> release() {
    notes.push_back("off");
    if (breaks)
      co_await fail(error_kind::io, "the switch is stuck");
  }
};
task<std::unique_ptr<lamp>> light(journal& notes, bool breaks) {
  notes.push_back("on");
  co_return std::make_unique<lamp>(notes, breaks);
}
task<std::unique_ptr<lamp>> no_lamp() {
  co_return fail(error_kind::not_found, "there is no lamp");
}
task<int> read_a_page(journal& notes, bool ok) {
  notes.push_back("read");
  if (!ok)
    co_await fail(error_kind::io, "the page is torn");
  co_return 12;
}
task<int> evening(journal& notes, bool reads, bool breaks) {
  const int page =
      co_await with(light(notes, breaks), [&](lamp&) { return read_a_page(notes, reads); });
  notes.push_back("slept");
  co_return page;
}
task<int> dark_evening(journal& notes) {
  const int page = co_await with(no_lamp(), [&](lamp&) { return read_a_page(notes, true); });
  co_return page;
}

} // namespace

TEST_CASE("with releases after success and after failure, and reports the first error") {
  bench b;
  {
    journal notes;
    CHECK(*run_to_end(*b.home, evening(notes, true, false)) == 12);
    CHECK(notes == journal{"on", "read", "off", "slept"});
  }
  {
    journal notes;
    const auto r = run_to_end(*b.home, evening(notes, false, true));
    CHECK(r.error().message() == "the page is torn");
    CHECK(notes == journal{"on", "read", "off"});
  }
  {
    journal notes;
    const auto r = run_to_end(*b.home, evening(notes, true, true));
    CHECK(r.error().message() == "the switch is stuck");
  }
  {
    journal notes;
    CHECK(run_to_end(*b.home, dark_evening(notes)).error().message() == "there is no lamp");
    CHECK(notes.empty());
  }
}

namespace {

task<void> hold(async_mutex& m, event& go, journal& notes, std::string name) {
  const async_mutex::guard g = co_await m.lock();
  notes.push_back("in " + name);
  co_await go.wait();
  notes.push_back("out " + name);
}
task<void> ring(event& go) {
  go.set();
  co_return;
}
task<void> two_holders(async_mutex& m, event& go, journal& notes) {
  std::vector<task<void>> tasks;
  tasks.push_back(hold(m, go, notes, "a"));
  tasks.push_back(hold(m, go, notes, "b"));
  tasks.push_back(ring(go));
  co_await when_all(std::move(tasks));
}

} // namespace

TEST_CASE("a mutex lets one task in at a time, whatever the order they run in") {
  for (u64 seed = 1; seed < 20; seed++) {
    const i64 frames = live_frame_count();
    {
      auto home = *loop::create({.shuffle_seed = seed});
      async_mutex m;
      event go;
      journal notes;
      CHECK(run_to_end(*home, two_holders(m, go, notes)));
      REQUIRE(notes.size() == 4);
      CHECK(notes[0].substr(3) == notes[1].substr(4));
      CHECK(notes[2].substr(3) == notes[3].substr(4));
      CHECK_FALSE(m.is_locked());
    }
    CHECK(live_frame_count() == frames);
  }
}

namespace {
task<void> wait_for(event& e, int& ended) {
  co_await e.wait();
  ended++;
}
task<void> fail_soon() {
  co_await fail(error_kind::io, "one failed");
}
task<void> all_of(event& never, int& ended) {
  std::vector<task<void>> tasks;
  tasks.push_back(wait_for(never, ended));
  tasks.push_back(wait_for(never, ended));
  tasks.push_back(fail_soon());
  co_await when_all(std::move(tasks));
}
} // namespace

TEST_CASE("when_all stops the waits of the others when one fails, and reports that one") {
  bench b;
  event never;
  int ended = 0;
  const result<> r = run_to_end(*b.home, all_of(never, ended));
  CHECK(r.error().message() == "one failed");
  CHECK(ended == 0);
}

TEST_CASE("cancelling ends a wait with an error and gives back what was held") {
  bench b;
  async_mutex m;
  event never;
  journal notes;
  cancel_state cancel;
  std::optional<result<>> first;
  std::optional<result<>> second;
  spawn(*b.home, hold(m, never, notes, "a"), &cancel, [&](result<> r) { first = std::move(r); });
  b.home->run_once();
  spawn(*b.home, hold(m, never, notes, "b"), &cancel, [&](result<> r) { second = std::move(r); });
  b.home->run_once();
  cancel.request();
  while (!first || !second)
    b.home->run_once();
  CHECK(first->error().kind() == error_kind::cancelled);
  CHECK(second->error().kind() == error_kind::cancelled);
  CHECK(notes == journal{"in a"});
  CHECK_FALSE(m.is_locked());
}

TEST_CASE("a gate closes when all have left, and refuses newcomers by name") {
  bench b;
  gate g;
  std::optional<gate::pass> inside = *g.enter("the graph");
  std::optional<result<>> closed;
  spawn(*b.home, g.close(), nullptr, [&](result<> r) { closed = std::move(r); });
  b.home->run_once();
  b.home->post(*new run_item([](run_item& me) { delete &me; })); // keeps the next turn from waiting
  b.home->run_once();
  CHECK_FALSE(closed);
  CHECK(g.enter("the graph").error().message() == "the graph is closing");
  inside.reset();
  while (!closed)
    b.home->run_once();
  CHECK(closed->has_value());
}

namespace {
task<void> in_range(range_lock& l, byte_range r, int& now, int& most) {
  const range_lock::guard g = co_await l.lock(r);
  most = std::max(most, ++now);
  event turn;
  turn.set();
  co_await turn.wait();
  now--;
}
task<void> ranges(range_lock& l, std::vector<byte_range> all, int& most) {
  int now = 0;
  std::vector<task<void>> tasks;
  for (const byte_range r : all)
    tasks.push_back(in_range(l, r, now, most));
  co_await when_all(std::move(tasks));
}
} // namespace

TEST_CASE("overlapping ranges exclude each other, disjoint ones do not") {
  bench b;
  range_lock l;
  int most = 0;
  CHECK(run_to_end(*b.home, ranges(l, {{0, 10}, {5, 10}, {9, 1}}, most)));
  CHECK(most == 1);
}

TEST_CASE("a semaphore admits as many as it has permits") {
  bench b;
  semaphore s(1);
  std::optional<semaphore::permit> first = *run_to_end(*b.home, s.acquire());
  std::optional<result<>> second;
  bool admitted = false;
  cancel_state cancel;
  struct waiter {
    static task<void> run(semaphore& sem, bool& in) {
      const semaphore::permit p = co_await sem.acquire();
      in = true;
    }
  };
  spawn(*b.home, waiter::run(s, admitted), &cancel, [&](result<> r) { second = std::move(r); });
  b.home->run_once();
  CHECK_FALSE(admitted);
  first.reset();
  while (!second)
    b.home->run_once();
  CHECK(admitted);
}
