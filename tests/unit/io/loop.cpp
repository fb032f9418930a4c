// SPDX-License-Identifier: MIT
// The loop with both of its backends, on real files.
#include "graph/io/loop.h"

#include "graph/base/is_zero.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/file.h"
#include "graph/io/io_operation.h"
#include "graph/io/offload.h"
#include "graph/io/sleep.h"
#include "graph/io/spawn.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <thread>

using namespace bgfs;

namespace {

constexpr io_backend_kind backends[] = {io_backend_kind::io_uring, io_backend_kind::threads};

std::unique_ptr<loop> make(io_backend_kind kind) {
  auto made = loop::create({.backend = kind});
  if (!made && kind == io_backend_kind::io_uring)
    return nullptr; // a kernel without it
  REQUIRE(made);
  return *std::move(made);
}

descriptor scratch_file() {
  return descriptor(memfd_create("scratch", MFD_CLOEXEC));
}

task<void> round_trip(file& f) {
  std::vector<std::byte> out(100000, std::byte{0x5a});
  co_await f.write(12345, out);
  std::vector<std::byte> in(100000);
  co_await f.read(12345, in);
  CHECK(in == out);
  std::vector<std::byte> tail(1000, std::byte{1});
  co_await f.read(112345 - 500, tail);
  CHECK(tail[499] == std::byte{0x5a});
  CHECK(tail[500] == std::byte{0});
  co_await f.sync();
  const u64 length = co_await f.length();
  CHECK(length == 112345);
  co_await f.truncate(50000);
  const u64 shorter = co_await f.length();
  CHECK(shorter == 50000);
}

} // namespace

TEST_CASE("files read, write, sync and truncate on every backend") {
  for (const io_backend_kind kind : backends) {
    for (const bool on_threads : {false, true}) {
      auto home = make(kind);
      if (!home)
        continue;
      file f(scratch_file(), "scratch", on_threads);
      const result<> r = run_to_end(*home, round_trip(f));
      CHECK_MESSAGE(r, (r ? std::string() : r.error().message()));
    }
  }
}

TEST_CASE("an error of the system says what was attempted on which file") {
  for (const io_backend_kind kind : backends) {
    auto home = make(kind);
    if (!home)
      continue;
    const auto opened = run_to_end(*home, open_descriptor("/nonexistent/file", O_RDONLY));
    CHECK(opened.error().message() == "cannot open '/nonexistent/file': No such file or directory");
    CHECK(opened.error().kind() == error_kind::not_found);
    file f(descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC)), "null");
    std::vector<std::byte> some(16);
    const result<> written = run_to_end(*home, f.write(0, some));
    CHECK(written.error().message() ==
          "cannot write 16 bytes at 0x0 of 'null': Bad file descriptor");
  }
}

namespace {
task<void> holes(file& f) {
  co_await f.truncate(MiB);
  std::vector<std::byte> block(4096, std::byte{7});
  co_await f.write(256 * KiB, block);
  const data_range hole = co_await f.seek_run(0, MiB);
  CHECK_FALSE(hole.is_data);
  CHECK(hole.range == byte_range{0, 256 * KiB});
  const data_range data = co_await f.seek_run(256 * KiB, MiB);
  CHECK(data.is_data);
  CHECK(data.range == byte_range{256 * KiB, 4096});
  co_await f.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, {256 * KiB, 4096});
  const data_range all = co_await f.seek_run(1000, MiB);
  CHECK_FALSE(all.is_data);
  CHECK(all.range == byte_range::between(1000, MiB));
}
} // namespace

TEST_CASE("holes and data are told apart") {
  for (const io_backend_kind kind : backends) {
    auto home = make(kind);
    if (!home)
      continue;
    file f(scratch_file(), "scratch");
    const result<> r = run_to_end(*home, holes(f));
    CHECK_MESSAGE(r, (r ? std::string() : r.error().message()));
  }
}

namespace {
task<i64> poll_once(int fd) {
  const i64 events = co_await io_poll(fd, POLLIN);
  co_return events;
}
} // namespace

TEST_CASE("a poll ends with the event, or with a cancellation") {
  for (const io_backend_kind kind : backends) {
    auto home = make(kind);
    if (!home)
      continue;
    int ends[2];
    REQUIRE(pipe2(ends, O_CLOEXEC) == 0);
    const descriptor reader(ends[0]);
    descriptor writer(ends[1]);
    cancel_state cancel;
    std::optional<i64> seen;
    bool done = false;
    struct poller {
      static task<void> run(int fd, std::optional<i64>& out) { out = co_await poll_once(fd); }
    };
    spawn(*home, poller::run(reader.get(), seen), &cancel, [&](result<>) { done = true; });
    home->run_once();
    cancel.request();
    while (!done)
      home->run_once();
    CHECK(seen == -ECANCELED);
    REQUIRE(write(writer.get(), "x", 1) == 1);
    CHECK((*run_to_end(*home, poll_once(reader.get())) & POLLIN) != 0);
  }
}

namespace {
task<int> add_elsewhere(int a, int b, std::thread::id here) {
  const int sum = co_await offload([=] { return std::this_thread::get_id() == here ? -1 : a + b; });
  co_return sum;
}
task<void> many_offloads(int& sum) {
  std::vector<task<void>> all;
  struct one {
    static task<void> run(int i, int& total) {
      const int v = co_await offload([=] { return i; });
      total += v; // at home again: no race
    }
  };
  for (int i = 0; i < 1000; i++)
    all.push_back(one::run(i, sum));
  co_await when_all(std::move(all));
}
} // namespace

TEST_CASE("offloaded work runs on another thread and comes home") {
  for (const io_backend_kind kind : backends) {
    auto home = make(kind);
    if (!home)
      continue;
    CHECK(*run_to_end(*home, add_elsewhere(2, 3, std::this_thread::get_id())) == 5);
    int sum = 0;
    CHECK(run_to_end(*home, many_offloads(sum)));
    CHECK(sum == 499500);
  }
}

namespace {
// Ends when the other is running, too, or after a time in which it would have begun.
struct meeting {
  std::mutex mutex;
  std::condition_variable came;
  int count = 0;

  bool meet() {
    std::unique_lock hold(mutex);
    count++;
    came.notify_all();
    return came.wait_for(hold, std::chrono::seconds(10), [this] { return count >= 2; });
  }
};
task<void> meet_elsewhere(meeting& at, int& met) {
  const bool has_met = co_await offload([&] { return at.meet(); });
  met += has_met ? 1 : 0;
}
} // namespace

TEST_CASE("what is offloaded at once runs at once, also when one thread waits for work") {
  for (int round = 0; round < 20; round++) {
    auto home = make(io_backend_kind::automatic);
    CHECK(*run_to_end(*home, add_elsewhere(2, 3, std::this_thread::get_id())) == 5);
    std::this_thread::sleep_for(std::chrono::milliseconds(2)); // it waits again by now
    meeting at;
    int met = 0;
    std::vector<task<void>> both;
    both.push_back(meet_elsewhere(at, met));
    both.push_back(meet_elsewhere(at, met));
    CHECK(run_to_end(*home, when_all(std::move(both))));
    REQUIRE(met == 2);
  }
}

TEST_CASE("two loops run on two threads, and one stops the other") {
  auto a = make(io_backend_kind::automatic);
  std::thread other([] {
    auto b = make(io_backend_kind::automatic);
    int sum = 0;
    CHECK(run_to_end(*b, many_offloads(sum)));
  });
  int sum = 0;
  CHECK(run_to_end(*a, many_offloads(sum)));
  other.join();
  std::thread stopper([&] { a->stop(); });
  a->run();
  stopper.join();
}

TEST_CASE("sleeping lets time pass, and a cancelled sleep ends early") {
  auto home = make(io_backend_kind::automatic);
  const auto begin = std::chrono::steady_clock::now();
  CHECK(run_to_end(*home, sleep_for(std::chrono::milliseconds(5))));
  CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(5));
  cancel_state cancel;
  std::optional<result<>> ended;
  spawn(*home, sleep_for(std::chrono::hours(1)), &cancel, [&](result<> r) { ended = r; });
  home->run_once();
  cancel.request();
  while (!ended)
    home->run_once();
  CHECK(ended->error().kind() == error_kind::cancelled);
}

TEST_CASE("buffers are page aligned and reused") {
  buffer_pool pool;
  std::byte* first = nullptr;
  {
    const buffer b = pool.allocate(5000);
    first = b.data();
    CHECK(reinterpret_cast<std::uintptr_t>(first) % 4096 == 0);
    CHECK(b.length() == 5000);
  }
  const buffer again = pool.allocate(8192);
  CHECK(again.data() == first);
  const buffer zeroed = pool.allocate_zeroed(300);
  CHECK(is_zero(zeroed.bytes()));
  again.data()[8191] = std::byte{1};
  CHECK_FALSE(is_zero(again.bytes().last(1)));
}

namespace {
task<void> look_at_the_time(loop& home, std::vector<steady_time>& seen) {
  seen.push_back(home.now());
  const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(50);
  while (std::chrono::steady_clock::now() < until) {
  }
  seen.push_back(home.now());
  co_await sleep_for(std::chrono::nanoseconds(0));
  seen.push_back(home.now());
}
} // namespace

TEST_CASE("the loop looks at the clock once for each item that runs") {
  const auto home = *loop::create({});
  const auto before = std::chrono::steady_clock::now();
  std::vector<steady_time> seen;
  REQUIRE(run_to_end(*home, look_at_the_time(*home, seen)).has_value());
  REQUIRE(seen.size() == 3);
  CHECK(seen[0] >= before);
  CHECK(seen[1] == seen[0]);
  CHECK(seen[2] >= seen[0] + std::chrono::microseconds(50));
}
