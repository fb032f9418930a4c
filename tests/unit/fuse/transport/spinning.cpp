// SPDX-License-Identifier: MIT
#include "fuse/transport/spinning.h"

#include <doctest/doctest.h>

using namespace bgfs;
using std::chrono::microseconds;

namespace {

// A clock, and a client that asks `pause` after each answer; waking up takes `waking`.
struct pauses {
  steady_time now{};
  spinning spins;
  microseconds waking{30};
  explicit pauses(bool has_other_processors = true) : spins(has_other_processors) {}

  // True: it was noticed without a sleep.
  bool wait_for_request(microseconds pause) {
    const steady_time comes = now + pause;
    while (spins.lasts(now)) {
      now += microseconds(1);
      if (now >= comes) {
        spins.found();
        return true;
      }
    }
    now = std::max(now, comes) + waking;
    spins.woke(now);
    spins.found();
    return false;
  }
};

} // namespace

TEST_CASE("short pauses are waited for without sleep, long ones are not for long") {
  pauses p;
  for (int i = 0; i < 10; i++)
    CHECK(p.wait_for_request(microseconds(20)));
  const steady_time begin = p.now;
  steady_time idle{};
  int tries = 0;
  for (int i = 0; i < 1000; i++) {
    const steady_time before = p.now;
    while (p.spins.lasts(p.now))
      p.now += microseconds(1);
    tries += p.now != before ? 1 : 0;
    CHECK(p.now - before <= spinning::length);
    idle += p.now - before;
    p.now += microseconds(1000);
    p.spins.woke(p.now);
    p.spins.found();
  }
  CHECK(p.now - begin > microseconds(1'000'000));
  CHECK(tries >= 10);
  CHECK(tries <= 25); // 1, 3, 7, 15, 31 and then 63 sleeps without a try
  CHECK(idle.time_since_epoch() <= 25 * spinning::length);
}

TEST_CASE("it is taken up again as soon as a pause was short") {
  pauses p;
  for (int i = 0; i < 200; i++)
    (void)p.wait_for_request(microseconds(1000));
  (void)p.wait_for_request(microseconds(20)); // woken, after a short while
  CHECK(p.wait_for_request(microseconds(20)));
}

TEST_CASE("nobody spins on the only processor") {
  pauses p(false);
  for (int i = 0; i < 10; i++)
    CHECK(!p.wait_for_request(microseconds(1)));
}

TEST_CASE("a wake-up that found nothing is no new pause") {
  spinning s(true);
  steady_time now{};
  while (s.lasts(now))
    now += microseconds(1);
  now += microseconds(500);
  s.woke(now);
  CHECK(!s.lasts(now)); // somebody else has taken it: sleep again
  s.found();
}
