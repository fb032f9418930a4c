// SPDX-License-Identifier: MIT
#include "graph/base/back_off.h"

#include <doctest/doctest.h>

using namespace bgfs;

namespace {

// How often it is said no before the next yes.
unsigned skipped(back_off& b) {
  unsigned count = 0;
  while (!b.is_due())
    count++;
  return count;
}

} // namespace

TEST_CASE("back_off: what keeps failing is tried more and more rarely, what succeeds always") {
  back_off b;
  CHECK(b.is_due());
  CHECK(b.is_due());
  for (const unsigned expected : {1U, 3U, 7U, 15U, 31U, 63U, 63U}) {
    b.failed();
    CHECK(skipped(b) == expected);
    CHECK(b.is_due()); // until it fails again
  }
  b.succeeded();
  CHECK(b.is_due());
  b.failed();
  CHECK(skipped(b) == 1);
}
