// SPDX-License-Identifier: MIT
#include "fuse/tree/lister_ledger.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <set>
#include <thread>
#include <unistd.h>

using namespace bgfs;

namespace {

struct ledger_bench {
  std::set<process_identity> dead;
  lister_ledger ledger{[this](const process_identity& p) { return !dead.contains(p); }};
};

} // namespace

TEST_CASE("who has listed a directory is known, and nobody else") {
  ledger_bench b;
  const process_identity one{100, 5};
  b.ledger.note(one, "web.d/snapshots/1");
  CHECK(b.ledger.has_listed(one, "web.d/snapshots/1"));
  CHECK_FALSE(b.ledger.has_listed(one, "web.d/snapshots/2"));
  CHECK_FALSE(b.ledger.has_listed({101, 5}, "web.d/snapshots/1"));
  CHECK_FALSE(b.ledger.has_listed({100, 6}, "web.d/snapshots/1")); // its number was used again
}

TEST_CASE("who has listed more than can be remembered has listed everything") {
  ledger_bench b;
  const process_identity one{100, 5};
  for (std::size_t i = 0; i < lister_ledger::directories_max; i++)
    b.ledger.note(one, fmt::format("{}", i));
  CHECK_FALSE(b.ledger.has_listed(one, "another"));
  b.ledger.note(one, "one more");
  CHECK(b.ledger.has_listed(one, "another"));
  CHECK(b.ledger.has_listed(one, "0"));
}

TEST_CASE("the dead are forgotten when there is no more room; while all live nobody may delete") {
  ledger_bench b;
  for (u32 i = 0; i < lister_ledger::processes_max; i++)
    b.ledger.note({i + 1, 1}, "d");
  CHECK_FALSE(b.ledger.is_overflowing());
  b.dead.insert({1, 1});
  b.ledger.note({5000, 1}, "d");
  CHECK(b.ledger.has_listed({5000, 1}, "d"));
  CHECK_FALSE(b.ledger.has_listed({1, 1}, "d"));
  CHECK_FALSE(b.ledger.is_overflowing());
  b.ledger.note({5001, 1}, "d"); // no room, and nobody is dead
  CHECK(b.ledger.is_overflowing());
  CHECK(b.ledger.process_count() == lister_ledger::processes_max);
  for (u32 i = 0; i < lister_ledger::processes_max; i += 3)
    b.dead.insert({i + 1, 1});
  CHECK(b.ledger.is_overflowing()); // a third is gone
  for (u32 i = 0; i < lister_ledger::processes_max; i++)
    b.dead.insert({i + 1, 1});
  CHECK_FALSE(b.ledger.is_overflowing());
}

TEST_CASE("the texts of /proc say which process a thread belongs to, and when that began") {
  CHECK(process_in_status("Name:\tx\nTgid:\t4711\nNgid:\t0\n") == 4711);
  CHECK_FALSE(process_in_status("Name:\tx\n").has_value());
  CHECK_FALSE(process_in_status("Name:\tx\nTgid:\tnone\n").has_value());
  const std::string fields = " S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 100 200";
  CHECK(start_in_stat("12 (cat)" + fields) == 987654);
  CHECK(start_in_stat("12 (a) b (c) 1 2)" + fields) == 987654); // a command may be called so
  CHECK_FALSE(start_in_stat("12 (cat) S 1 1").has_value());
  CHECK_FALSE(start_in_stat("").has_value());
}

TEST_CASE("every thread of a process is that process, and lives as long") {
  const process_identity me = process_of(static_cast<u32>(getpid()));
  CHECK(me.pid == static_cast<u32>(getpid()));
  CHECK(me.start > 0);
  CHECK(is_alive(me));
  CHECK_FALSE(is_alive({me.pid, me.start + 1}));
  process_identity in_thread;
  std::thread([&] { in_thread = process_of(static_cast<u32>(gettid())); }).join();
  CHECK(in_thread == me);
  CHECK(process_of(0) == process_identity{}); // of another namespace
  CHECK_FALSE(command_of(me.pid).empty());
}
