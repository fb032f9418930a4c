// SPDX-License-Identifier: MIT
#include "graph/jobs/rate_limit.h"

#include <doctest/doctest.h>

#include <random>

using namespace bgfs;
using namespace std::chrono_literals;

namespace {
constexpr rate_limit::time start{std::chrono::hours(1)};
} // namespace

TEST_CASE("a rate without a limit never waits") {
  rate_limit limit;
  CHECK(limit.slice_length() == 0);
  limit.spend(u64{1} << 40, start);
  CHECK(limit.free_at() <= start);
}

TEST_CASE("a rate is paid for in time") {
  rate_limit limit;
  limit.set_speed(1000000);
  limit.spend(100000, start);
  CHECK(limit.free_at() == start + 100ms);
  limit.spend(250000, start + 100ms);
  CHECK(limit.free_at() == start + 350ms);
  SUBCASE("what was not used is not saved up") {
    limit.spend(100000, start + 10s);
    CHECK(limit.free_at() == start + 10s + 100ms);
  }
  SUBCASE("what is spent too early is paid for later") {
    limit.spend(100000, start + 200ms);
    CHECK(limit.free_at() == start + 450ms);
  }
  SUBCASE("another speed begins anew") {
    limit.set_speed(10);
    CHECK(limit.free_at() < start);
  }
}

TEST_CASE("a slice takes a tenth of a second, and is worth a request") {
  rate_limit limit;
  limit.set_speed(100 * MiB);
  CHECK(limit.slice_length() == 10 * MiB);
  limit.set_speed(1);
  CHECK(limit.slice_length() == rate_limit::slice_length_min);
}

TEST_CASE("whoever spends slices when he may never exceeds the rate, and does not fall behind") {
  std::mt19937_64 random(5);
  for (int turn = 0; turn < 50; turn++) {
    const u64 speed = 1 + random() % (64 * MiB);
    CAPTURE(speed);
    rate_limit limit;
    limit.set_speed(speed);
    rate_limit::time now = start;
    u64 spent = 0;
    for (int i = 0; i < 200; i++) {
      now = std::max(now, limit.free_at());
      const u64 bytes = 1 + random() % limit.slice_length();
      limit.spend(bytes, now);
      spent += bytes;
    }
    const double seconds = std::chrono::duration<double>(limit.free_at() - start).count();
    CHECK(static_cast<double>(spent) / seconds == doctest::Approx(static_cast<double>(speed)));
  }
}
