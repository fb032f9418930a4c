// SPDX-License-Identifier: MIT
#include "fuse/operations/interruption.h"

#include <doctest/doctest.h>

#include <unistd.h>

using namespace bgfs;

TEST_CASE("a pending SIGKILL is one in either list of pending signals") {
  CHECK(has_pending_kill("Name:\tdd\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"));
  CHECK(has_pending_kill("SigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n"));
  CHECK_FALSE(has_pending_kill("SigPnd:\t0000000000002000\nShdPnd:\t0000000000000200\n"));
  CHECK_FALSE(has_pending_kill(""));
  CHECK_FALSE(has_pending_kill("SigPnd:\t"));
  CHECK_FALSE(has_pending_kill("SigPnd:\tnonsense\n"));
}

TEST_CASE("a living process is not being killed, nor one that nobody knows") {
  CHECK_FALSE(is_being_killed(static_cast<u32>(getpid())));
  CHECK_FALSE(is_being_killed(0));
  CHECK_FALSE(is_being_killed(0x7fffffff));
}
