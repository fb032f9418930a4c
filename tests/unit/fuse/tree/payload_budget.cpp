// SPDX-License-Identifier: MIT
#include "fuse/tree/payload_budget.h"

#include "graph/io/spawn.h"
#include "tests/unit/lib/heap_trips.h"

#include <doctest/doctest.h>

#include <array>
#include <vector>

using namespace bgfs;

namespace {

// Requests that hold what they were given until they are told to end.
struct crowd {
  std::unique_ptr<loop> home = *loop::create();
  payload_budget budget{16 * MiB};
  payload_share a, b, c;
  std::vector<int> served; // in order
  std::array<event, 256> ends;
  task_group group{*home};

  static task<void> request(crowd& all, payload_share& share, u64 length, int number) {
    payload_budget::hold held = all.budget.try_take(share, length);
    if (!held)
      held = co_await all.budget.take(share, length);
    all.served.push_back(number);
    co_await shielded(all.ends.at(static_cast<std::size_t>(number)).wait());
  }
  void ask(payload_share& share, u64 length, int number) {
    group.spawn(request(*this, share, length, number));
    settle();
  }
  void settle() {
    for (int i = 0; i < 20; i++)
      CHECK(run_to_end(*home, turn()).has_value());
  }
  static task<void> turn() {
    event now;
    now.set();
    co_await now.wait();
  }
  void finish(int number) {
    ends.at(static_cast<std::size_t>(number)).set();
    settle();
  }
  void finish() {
    for (event& end : ends)
      end.set();
    CHECK(run_to_end(*home, group.join()).has_value());
    CHECK(budget.held() == 0);
    CHECK(budget.waiting() == 0);
  }
};

} // namespace

TEST_CASE("a root whose requests hang leaves half of the budget to the others") {
  crowd all;
  for (int i = 0; i < 100; i++)
    all.ask(all.a, MiB, i);
  CHECK(all.a.held() == 8 * MiB);
  CHECK(all.a.waiting() == 92);
  for (int i = 100; i < 200; i++)
    all.ask(all.b, MiB, i);
  CHECK(all.b.held() == 4 * MiB);
  all.ask(all.c, MiB, 200); // nothing held: it is served
  CHECK(all.c.held() == MiB);
  CHECK(all.budget.held() <= all.budget.total());
  all.finish();
  CHECK(all.served.size() == 201);
  CHECK(all.budget.held_max() <= 16 * MiB);
}

TEST_CASE("requests of one root are served in the order they came, whatever they need") {
  crowd all;
  all.ask(all.a, 6 * MiB, 0);
  all.ask(all.a, 8 * MiB, 1);
  all.ask(all.a, 4096, 2); // would fit, and waits behind the one before
  CHECK(all.served == std::vector<int>{0});
  CHECK(all.a.waiting() == 2);
  all.finish(0);
  CHECK(all.served == std::vector<int>{0, 1});
  all.finish(1);
  CHECK(all.served == std::vector<int>{0, 1, 2});
  all.finish();
}

TEST_CASE("a request that needs all there is gets it when nothing else is held") {
  crowd all;
  all.ask(all.a, 16 * MiB, 0);
  all.ask(all.b, 16 * MiB, 1);
  CHECK(all.served == std::vector<int>{0});
  all.finish();
  CHECK(all.served == std::vector<int>{0, 1});
}

TEST_CASE("who gives up waiting takes nothing and lets the next one pass") {
  crowd all;
  cancel_state killed;
  bool was_cancelled = false;
  all.ask(all.a, 8 * MiB, 0);
  spawn(*all.home, crowd::request(all, all.a, 8 * MiB, 1), &killed, [&](result<> outcome) {
    was_cancelled = !outcome && outcome.error().kind() == error_kind::cancelled;
  });
  all.settle();
  all.ask(all.a, 0, 2);
  CHECK(all.a.waiting() == 2);
  killed.request();
  all.settle();
  CHECK(was_cancelled);
  CHECK(all.served == std::vector<int>{0, 2});
  CHECK(all.a.held() == 8 * MiB);
  all.finish();
}

TEST_CASE("what does not wait for memory makes no trip to the heap") {
  payload_budget budget;
  payload_share share;
  const auto before = test::heap_trips();
  for (int i = 0; i < 100; i++) {
    const payload_budget::hold held = budget.try_take(share, 4096);
    CHECK(static_cast<bool>(held));
  }
  CHECK(test::heap_trips() == before);
}
