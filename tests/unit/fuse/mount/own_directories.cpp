// SPDX-License-Identifier: MIT
#include "fuse/mount/own_directories.h"

#include <doctest/doctest.h>

using namespace bgfs;

TEST_CASE("the list of mounts is read once however often it is asked for") {
  const own_directories places("/nonexistent/mnt");
  CHECK(places.readings() == 0);
  const std::vector<std::string> wanted = {"/nonexistent/mnt"};
  for (unsigned i = 0; i < 1000; i++)
    CHECK(places.now() == wanted);
  // Others may mount something meanwhile, but not a thousand times.
  CHECK(places.readings() >= 1);
  CHECK(places.readings() < 100);
}
