// SPDX-License-Identifier: MIT
#include "graph/io/sleep.h"

#include "graph/io/spawn.h"

#include <doctest/doctest.h>

using namespace bgfs;

namespace {

task<void> sleep_a_moment() {
  co_await sleep_for(std::chrono::nanoseconds(0));
}

task<void> fail_after(unsigned turns) {
  for (unsigned i = 0; i < turns; i++)
    co_await sleep_for(std::chrono::nanoseconds(0));
  co_await fail(error_kind::io, "broken");
}

} // namespace

TEST_CASE("a timer that has fired is taken back when its sleeper is cancelled first") {
  for (u64 seed = 1; seed < 200; seed++) {
    auto home = loop::create({.shuffle_seed = seed});
    REQUIRE(home.has_value());
    std::vector<task<void>> tasks;
    for (int i = 0; i < 8; i++)
      tasks.push_back(sleep_a_moment());
    tasks.push_back(fail_after(static_cast<unsigned>(seed % 3)));
    for (int i = 0; i < 8; i++)
      tasks.push_back(sleep_a_moment());
    const result<> outcome = run_to_end(**home, when_all(std::move(tasks)));
    REQUIRE(!outcome.has_value());
    CHECK(outcome.error().message() == "broken");
  }
}

namespace {

task<void> work_until(const bool& done) {
  time_slice slice;
  while (!done)
    if (slice.is_used_up())
      co_await slice.next();
}

task<void> say_done(bool& done) {
  done = true;
  co_return;
}

} // namespace

TEST_CASE("work in slices lets others have their turn") {
  auto home = loop::create();
  REQUIRE(home.has_value());
  bool done = false;
  std::vector<task<void>> tasks;
  tasks.push_back(work_until(done));
  tasks.push_back(say_done(done));
  CHECK(run_to_end(**home, when_all(std::move(tasks))).has_value());
}
