// SPDX-License-Identifier: MIT
// Tasks on the loops of other threads.
#include "graph/io/run_on.h"

#include "graph/io/sleep.h"
#include "graph/io/sync.h"

#include <doctest/doctest.h>

#include <thread>

using namespace bgfs;

namespace {

// A loop that runs on a thread of its own until the end of the test.
class threaded_loop {
public:
  threaded_loop() : loop_(*loop::create()), thread_([this] { loop_->run(); }) {}
  ~threaded_loop() {
    loop_->stop();
    thread_.join();
  }
  threaded_loop(const threaded_loop&) = delete;
  threaded_loop& operator=(const threaded_loop&) = delete;
  [[nodiscard]] loop& get() { return *loop_; }
  [[nodiscard]] std::thread::id thread() const { return thread_.get_id(); }

private:
  std::unique_ptr<loop> loop_;
  std::thread thread_;
};

task<std::thread::id> who_runs() {
  co_await sleep_for(std::chrono::milliseconds(1)); // a wait goes on there, too
  co_return std::this_thread::get_id();
}

task<int> fail_there() {
  co_await fail(error_kind::no_space, "no room at {}", 7);
  co_return 1;
}

task<void> wait_for_ever(event& never, bool& was_interrupted) {
  const result<> outcome = co_await as_result(never.wait());
  was_interrupted = !outcome && outcome.error().kind() == error_kind::cancelled;
  co_await outcome;
}

// Asks for `t` to stop after a moment, and returns what it ended with.
result<> stop_after(loop& here, std::chrono::microseconds moment, task<void> t) {
  cancel_state cancel;
  std::optional<result<>> outcome;
  spawn(here, std::move(t), &cancel, [&](result<> r) { outcome = std::move(r); });
  const auto asked = run_to_end(here, sleep_for(moment));
  CHECK(asked.has_value());
  cancel.request();
  while (!outcome)
    here.run_once();
  return *std::move(outcome);
}

} // namespace

TEST_CASE("a task runs on the other loop, and its value and its error come back") {
  const auto here = *loop::create();
  threaded_loop there;
  CHECK(*run_to_end(*here, run_on(there.get(), who_runs())) == there.thread());
  const result<int> failed = run_to_end(*here, run_on(there.get(), fail_there()));
  REQUIRE(!failed.has_value());
  CHECK(failed.error().kind() == error_kind::no_space);
  CHECK(failed.error().message() == "no room at 7");
  // On one's own loop it is an await like any other.
  CHECK(*run_to_end(*here, run_on(*here, who_runs())) == std::this_thread::get_id());
  CHECK(!run_to_end(*here, run_on(*here, fail_there())).has_value());
}

TEST_CASE("a cancellation reaches what runs on the other loop") {
  const auto here = *loop::create();
  threaded_loop there;
  event never;
  bool was_interrupted = false;
  const result<> outcome = stop_after(*here, std::chrono::milliseconds(2),
                                      run_on(there.get(), wait_for_ever(never, was_interrupted)));
  REQUIRE(!outcome.has_value());
  CHECK(outcome.error().kind() == error_kind::cancelled);
  CHECK(was_interrupted);
}

TEST_CASE("a cancellation that comes as the task ends does no harm") {
  const auto here = *loop::create();
  threaded_loop there;
  int ended = 0;
  for (int i = 0; i < 300; i++) {
    const result<> outcome =
        stop_after(*here, std::chrono::microseconds(1000 + i % 100),
                   run_on(there.get(), sleep_for(std::chrono::milliseconds(1))));
    ended += outcome.has_value() ? 1 : 0;
    CHECK((outcome.has_value() || outcome.error().kind() == error_kind::cancelled));
  }
  CHECK(ended <= 300);
}

TEST_CASE("tasks cross between loops in both directions at once") {
  const auto here = *loop::create();
  threaded_loop there;
  threaded_loop other;
  const auto pass = [&](auto& self, int depth) -> task<int> {
    if (depth == 0)
      co_return 0;
    const int below =
        co_await run_on(depth % 2 == 0 ? there.get() : other.get(), self(self, depth - 1));
    co_return below + 1;
  };
  std::vector<task<void>> all;
  int sum = 0;
  const auto add = [&](int depth) -> task<void> { sum += co_await pass(pass, depth); };
  for (int i = 0; i < 50; i++)
    all.push_back(add(20));
  CHECK(run_to_end(*here, when_all(std::move(all))).has_value());
  CHECK(sum == 50 * 20);
}
