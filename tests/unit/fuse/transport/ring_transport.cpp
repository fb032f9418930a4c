// SPDX-License-Identifier: MIT
#include "fuse/transport/ring_transport.h"

#include <doctest/doctest.h>

using namespace bgfs;

TEST_CASE("a list of processors is counted") {
  CHECK(count_in_list("0") == 1);
  CHECK(count_in_list("0-1\n") == 2);
  CHECK(count_in_list("0-3,8,10-11") == 7);
  for (const char* wrong : {"", "\n", "x", "3-1", "0-", "0-x"})
    CHECK_FALSE(count_in_list(wrong).has_value());
  CHECK(count_possible_processors() >= 1);
}
