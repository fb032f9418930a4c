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
