// SPDX-License-Identifier: MIT
#include "graph/jobs/job.h"

#include "graph/io/sleep.h"
#include "graph/jobs/job_list.h"
#include "tests/unit/lib/background.h"
#include "tests/unit/lib/layer_driver.h"

#include <cerrno>
#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

// Steps that are counted, with a pause point between any two.
struct counted_work {
  u64 steps_max = ~u64{0};
  u64 steps = 0;
  unsigned in_flight = 0;
  std::optional<error> failure = {}; // at its end
  bool undo_is_over = false;

  task<void> run(job& control) {
    const result<> done = co_await as_result(work(control));
    co_await shielded(sleep_for(std::chrono::nanoseconds(0)));
    undo_is_over = true;
    co_await done;
  }

private:
  struct request {
    unsigned& count;
    explicit request(unsigned& c) : count(c) { count++; }
    ~request() { count--; }
    request(const request&) = delete;
    request& operator=(const request&) = delete;
  };
  task<void> work(job& control) {
    while (steps < steps_max) {
      if (control.description().has_pause_points)
        (void)co_await control.pause_point(1);
      {
        const request mine(in_flight);
        co_await sleep_for(std::chrono::nanoseconds(0));
      }
      control.set_progress(++steps, steps_max);
    }
    bool may = false;
    while (!may)
      may = co_await control.may_complete();
    co_await control.begin_last_step();
    if (failure)
      co_await fail(*failure);
  }
};

class job_bench {
public:
  explicit job_bench(job_description what = {}) : list_(bench.home(), &events), beside(bench) {
    what.id = "j";
    what.type = "test";
    what_ = what;
  }
  ~job_bench() {
    list_.stop();
    bench.must(list_.join());
  }
  job_pointer begin() {
    result<job_pointer> made =
        list_.start(what_, [this](job& control) { return work.run(control); });
    REQUIRE(made.has_value());
    return *made;
  }
  // Lets it go until the state is that one.
  void await_state(const job& j, job_state wanted) {
    for (int i = 0; i < 1000 && j.state() != wanted; i++)
      beside.settle();
    REQUIRE(j.state() == wanted);
  }
  [[nodiscard]] std::vector<std::string> statuses() const {
    std::vector<std::string> all;
    for (const auto& [type, data] : events.events)
      if (type == "JOB_STATUS_CHANGE")
        all.push_back(*data.find("status")->as_text());
    return all;
  }

  event_log events;
  graph_bench bench{{}};
  job_list list_;
  background beside;
  counted_work work;

private:
  job_description what_;
};

std::string why(const result<>& r) {
  return r ? std::string() : r.error().message();
}

} // namespace

TEST_CASE("a job runs to its end, says so, and is listed no longer") {
  job_bench b;
  b.work.steps_max = 5;
  const job_pointer j = b.begin();
  CHECK(j->state() == job_state::created);
  CHECK(b.list_.all().size() == 1);
  b.bench.must(j->ended());
  CHECK(b.list_.all().empty());
  CHECK(b.work.steps == 5);
  CHECK(j->done() == 5);
  CHECK(j->total() == 5);
  CHECK(j->failure() == nullptr);
  CHECK(b.statuses() == std::vector<std::string>{"running", "pending", "concluded", "null"});
  CHECK(b.events.count("BLOCK_JOB_COMPLETED") == 1);
  CHECK(b.events.count("BLOCK_JOB_ERROR") == 0);
  const result<job_pointer> gone = b.list_.find("j");
  REQUIRE(!gone.has_value());
  CHECK(gone.error().kind() == error_kind::not_found);
}

TEST_CASE("a paused job has nothing in flight, and goes on when it is resumed") {
  job_bench b({.has_pause_points = true});
  const job_pointer j = b.begin();
  b.await_state(*j, job_state::running);
  CHECK(j->pause().has_value());
  b.bench.must(j->settled());
  CHECK(j->state() == job_state::paused);
  CHECK(b.work.in_flight == 0);
  const u64 steps = b.work.steps;
  b.beside.settle();
  CHECK(b.work.steps == steps);
  CHECK(why(j->pause()) == "job 'j' is paused already");
  CHECK(j->resume().has_value());
  b.await_state(*j, job_state::running);
  CHECK(why(j->resume()) == "job 'j' was not paused, and cannot be resumed");
  b.beside.settle();
  CHECK(b.work.steps > steps);
  CHECK(j->cancel().has_value());
}

TEST_CASE("holds are counted, and the user's pause is one on top of them") {
  job_bench b({.has_pause_points = true});
  const job_pointer j = b.begin();
  b.await_state(*j, job_state::running);
  auto first = std::make_unique<job::hold>(*j);
  auto second = std::make_unique<job::hold>(*j);
  b.bench.must(j->settled());
  CHECK(j->state() == job_state::paused);
  CHECK(why(j->resume()) == "job 'j' was not paused, and cannot be resumed");
  CHECK(j->pause().has_value());
  first.reset();
  second.reset();
  b.beside.settle();
  CHECK(j->state() == job_state::paused);
  second = std::make_unique<job::hold>(*j);
  CHECK(j->resume().has_value());
  b.beside.settle();
  CHECK(j->state() == job_state::paused);
  second.reset();
  b.await_state(*j, job_state::running);
  CHECK(j->cancel().has_value());
}

TEST_CASE("a cancelled job undoes what it has begun first, whatever it was doing") {
  for (const bool is_paused : {false, true}) {
    for (const bool has_begun : {false, true}) {
      CAPTURE(is_paused);
      CAPTURE(has_begun);
      job_bench b({.has_pause_points = true, .when_cancelled = "nothing is lost"});
      const job_pointer j = b.begin();
      if (has_begun)
        b.await_state(*j, job_state::running);
      if (is_paused) {
        CHECK(j->pause().has_value());
        if (has_begun)
          b.await_state(*j, job_state::paused);
      }
      CHECK(j->cancel().has_value());
      CHECK(j->state() == job_state::aborting);
      CHECK(why(j->cancel()) ==
            "job 'j' is aborting and cannot be cancelled now; it takes back what "
            "it has begun, and is over soon");
      const result<> ended = b.bench.run(j->ended());
      REQUIRE(!ended.has_value());
      CHECK(ended.error().kind() == error_kind::cancelled);
      CHECK(ended.error().os_error() == ECANCELED);
      CHECK(ended.error().message() == "job 'j' was cancelled; nothing is lost");
      CHECK(b.work.undo_is_over == has_begun);
      CHECK(b.events.count("BLOCK_JOB_CANCELLED") == 1);
      CHECK(b.events.count("BLOCK_JOB_COMPLETED") == 0);
      CHECK(b.list_.all().empty());
    }
  }
}

TEST_CASE("a job that has failed is kept for who did not wait for it, until it is dismissed") {
  for (const bool has_audience : {false, true}) {
    job_bench b({.has_audience = has_audience});
    b.work.steps_max = 2;
    b.work.failure = error(error_kind::io, "the disk is gone", EIO);
    const job_pointer j = b.begin();
    CHECK(
        why(b.list_.dismiss("j")) ==
        "job 'j' is created and cannot be dismissed now; cancel it, or wait until it is concluded");
    const result<> ended = b.bench.run(j->ended());
    REQUIRE(!ended.has_value());
    CHECK(ended.error().message() == "the disk is gone");
    CHECK(b.events.count("BLOCK_JOB_ERROR") == 1);
    CHECK(b.events.count("BLOCK_JOB_COMPLETED") == 1);
    CHECK(b.list_.all().size() == (has_audience ? 0 : 1));
    if (has_audience)
      continue;
    CHECK(j->state() == job_state::concluded);
    REQUIRE(j->failure() != nullptr);
    CHECK(j->failure()->message() == "the disk is gone");
    for (const result<>& refused : {j->cancel(), j->check(job_verb::cancel)})
      CHECK(why(refused) == "job 'j' is concluded and cannot be cancelled now; it is over, and can "
                            "only be dismissed");
    CHECK(b.list_.dismiss("j").has_value());
    CHECK(b.list_.all().empty());
    CHECK(b.statuses().back() == "null");
    CHECK(!b.list_.dismiss("j").has_value());
  }
}

TEST_CASE(
    "another job of the same name takes the place of one that has failed, not of one that runs") {
  job_bench b;
  b.work.failure = error(error_kind::io, "broken");
  b.work.steps_max = 1;
  const job_pointer first = b.begin();
  const result<job_pointer> refused =
      b.list_.start({.id = "j", .type = "test"}, [&](job& c) { return b.work.run(c); });
  REQUIRE(!refused.has_value());
  CHECK(refused.error().kind() == error_kind::busy);
  CHECK(refused.error().message() == "job 'j' is created already; wait for it, or cancel it");
  (void)b.bench.run(first->ended());
  const job_pointer second = b.begin();
  CHECK(first->state() == job_state::null);
  CHECK(b.list_.all() == std::vector<job_pointer>{second});
}

TEST_CASE("no more than a few that have failed are kept, the latest ones") {
  job_bench b;
  counted_work work{.steps_max = 0, .failure = error(error_kind::io, "broken")};
  for (std::size_t i = 0; i < job_list::kept_max + 3; i++) {
    const auto made = b.list_.start({.id = fmt::format("j{}", i), .type = "test"},
                                    [&](job& c) { return work.run(c); });
    REQUIRE(made.has_value());
    (void)b.bench.run((*made)->ended());
  }
  CHECK(b.list_.all().size() == job_list::kept_max);
  CHECK(b.list_.all().front()->id() == "j3");
}

TEST_CASE("a job without pause points says what it cannot do") {
  job_bench b;
  const job_pointer j = b.begin();
  for (const job_verb verb : {job_verb::pause, job_verb::resume, job_verb::set_speed}) {
    const result<> refused = j->check(verb);
    REQUIRE(!refused.has_value());
    CHECK(refused.error().kind() == error_kind::unsupported);
    CHECK(refused.error().message().contains("goes through without a point where it could pause"));
  }
  const result<> refused = j->complete();
  REQUIRE(!refused.has_value());
  CHECK(refused.error().kind() == error_kind::unsupported);
  CHECK(refused.error().message().contains("completes by itself"));
  CHECK(j->cancel().has_value());
}

TEST_CASE("a job that waits to complete becomes ready, and completes when it is told to") {
  job_bench b({.has_pause_points = true, .waits_to_complete = true});
  b.work.steps_max = 3;
  const job_pointer j = b.begin();
  const result<> early = j->complete();
  REQUIRE(!early.has_value());
  CHECK(early.error().kind() == error_kind::busy);
  b.await_state(*j, job_state::ready);
  CHECK(b.events.count("BLOCK_JOB_READY") == 1);
  CHECK(j->pause().has_value());
  b.bench.must(j->settled());
  CHECK(j->state() == job_state::standby);
  CHECK(why(j->complete()) == "job 'j' is standby and cannot be completed now; resume it first");
  CHECK(j->resume().has_value());
  b.await_state(*j, job_state::ready);
  CHECK(j->complete().has_value());
  b.bench.must(j->ended());
  CHECK(b.events.count("BLOCK_JOB_READY") == 1);
  CHECK(b.events.count("BLOCK_JOB_COMPLETED") == 1);
}

TEST_CASE("the last step of a job is neither cancelled nor paused") {
  job_bench b({.has_pause_points = true});
  event go_on;
  bool is_there = false;
  const auto last = [](job& control, bool& there, event& go) -> task<void> {
    co_await control.begin_last_step();
    there = true;
    co_await go.wait();
  };
  const auto made = b.list_.start({.id = "last", .type = "test", .has_pause_points = true},
                                  [&](job& c) { return last(c, is_there, go_on); });
  REQUIRE(made.has_value());
  b.await_state(**made, job_state::pending);
  CHECK(is_there);
  for (const result<>& refused : {(*made)->cancel(), (*made)->pause(), (*made)->set_speed(1)}) {
    REQUIRE(!refused.has_value());
    CHECK(refused.error().message().contains("its last step is not taken back"));
  }
  b.list_.stop();
  go_on.set();
  b.bench.must((*made)->ended());
  CHECK(!b.list_.start({.id = "late", .type = "test"}, [&](job& c) { return b.work.run(c); }));
}

TEST_CASE("who is interrupted while waiting for a job cancels it, and returns when it is over") {
  job_bench b({.has_pause_points = true});
  const job_pointer j = b.begin();
  cancel_state interruption;
  std::optional<result<>> outcome;
  spawn(b.bench.home(), b.list_.await_or_cancel(j), &interruption,
        [&](result<> r) { outcome = std::move(r); });
  b.await_state(*j, job_state::running);
  CHECK(!outcome.has_value());
  interruption.request();
  b.beside.settle();
  b.beside.settle();
  REQUIRE(outcome.has_value());
  REQUIRE(!outcome->has_value());
  CHECK(outcome->error().kind() == error_kind::cancelled);
  CHECK(j->is_over());
  CHECK(b.work.undo_is_over);
}

TEST_CASE("a speed makes slices shorter, and none longer than the work finds good") {
  job_bench b({.has_pause_points = true, .bytes_per_second = 1000});
  std::vector<job_slice> seen;
  const auto ask = [](job& control, std::vector<job_slice>& into) -> task<void> {
    for (int i = 0; i < 2; i++) {
      const job_slice slice = co_await control.pause_point(0);
      into.push_back(slice);
      BGFS_ASSERT(control.set_speed(0).has_value());
    }
  };
  const auto made = b.list_.start(
      {.id = "slow", .type = "test", .has_pause_points = true, .bytes_per_second = 1000},
      [&](job& c) { return ask(c, seen); });
  REQUIRE(made.has_value());
  b.bench.must((*made)->ended());
  REQUIRE(seen.size() == 2);
  CHECK(seen[0].is_limited);
  CHECK(seen[0].length == rate_limit::slice_length_min);
  CHECK(!seen[1].is_limited);
  CHECK(seen[1].length > seen[0].length);
}

TEST_CASE("a job that waits for its speed can be paused, given another speed, and cancelled") {
  for (const bool is_cancelled : {false, true}) {
    job_bench b({.has_pause_points = true, .bytes_per_second = 1}); // a step is a second
    b.work.steps_max = 1000000;
    const job_pointer j = b.begin();
    b.await_state(*j, job_state::running);
    for (int i = 0; i < 100 && b.work.steps == 0; i++)
      b.beside.settle();
    CHECK(j->pause().has_value());
    b.bench.must(j->settled());
    CHECK(j->state() == job_state::paused);
    CHECK(b.work.steps <= 1);
    CHECK(j->resume().has_value());
    if (is_cancelled) {
      CHECK(j->cancel().has_value());
      CHECK(!b.bench.run(j->ended()).has_value());
      continue;
    }
    b.work.steps_max = 50;
    CHECK(j->set_speed(0).has_value());
    b.bench.must(j->ended());
    CHECK(b.work.steps == 50);
  }
}

TEST_CASE("random verbs at random moments: every change of state is one of the table") {
  for (u64 seed = 1; seed <= 60; seed++) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    job_bench b({.has_pause_points = true, .waits_to_complete = seed % 2 == 0});
    b.work.steps_max = random() % 200;
    const job_pointer j = b.begin();
    for (int i = 0; i < 60 && !j->is_over(); i++) {
      b.bench.must(sleep_for(std::chrono::nanoseconds(0)));
      const job_state before = j->state();
      if (before == job_state::paused || before == job_state::standby)
        CHECK(b.work.in_flight == 0);
      const auto verb = all_job_verbs[random() % 4]; // cancel, pause, resume, speed
      const bool is_rare = verb == job_verb::cancel && random() % 16 != 0;
      if (is_rare)
        continue;
      const result<> may = j->check(verb);
      CHECK(may.has_value() == allows(before, verb));
      if (verb == job_verb::cancel)
        (void)j->cancel();
      if (verb == job_verb::pause)
        (void)j->pause();
      if (verb == job_verb::resume)
        (void)j->resume();
      if (verb == job_verb::set_speed)
        (void)j->set_speed(random() % 2 == 0 ? 0 : 1000000000);
      if (j->state() == job_state::ready)
        (void)j->complete();
    }
    while (!j->is_over()) {
      (void)j->resume();
      b.beside.settle();
      if (j->state() == job_state::ready)
        CHECK(j->complete().has_value());
    }
    CHECK(b.work.in_flight == 0);
    CHECK((j->failure() != nullptr) == j->was_cancelled());
    job_state last = job_state::created;
    for (const std::string& name : b.statuses()) {
      const auto next =
          std::ranges::find_if(all_job_states, [&](job_state s) { return to_string(s) == name; });
      REQUIRE(next != all_job_states.end());
      CHECK(may_follow(last, *next));
      last = *next;
    }
    CHECK(last == job_state::null);
  }
}
