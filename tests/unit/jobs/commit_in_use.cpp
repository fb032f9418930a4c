// SPDX-License-Identifier: MIT
#include "graph/jobs/commit_in_use.h"

#include "graph/jobs/job_list.h"
#include "tests/unit/jobs/chain_bench.h"

#include <cerrno>

using namespace bgfs;
using namespace bgfs::test;

namespace {

constexpr u64 disk_length = 1 << 20;

// A commit of the top of a chain, as a job.
class commit_bench {
public:
  explicit commit_bench(job_description what = {}, u64 length = disk_length)
      : chain(length, length, length, false), beside(chain.b_.bench),
        list_(chain.b_.bench.home(), nullptr) {
    what.id = "commit-top";
    what.type = "commit";
    what.has_pause_points = true;
    what_ = what;
  }
  ~commit_bench() {
    list_.stop();
    chain.b_.bench.must(list_.join());
  }

  job_pointer begin() {
    auto made = list_.start(what_, [this](job& control) {
      return commit_in_use({.top = chain.root_, .base = chain.mid_, .control = &control},
                           *chain.top_);
    });
    REQUIRE(made.has_value());
    return *made;
  }
  // One that completes by itself.
  result<> run() {
    what_.waits_to_complete = false;
    return chain.b_.bench.run(begin()->ended());
  }
  void await_state(const job& j, job_state wanted) {
    for (int i = 0; i < 2000 && j.state() != wanted; i++)
      beside.settle();
    REQUIRE(j.state() == wanted);
  }
  // The overlay holds nothing, and nothing is left of the job.
  void check_empty() {
    const block_status s = chain.b_.bench.must(chain.top_->status({0, chain.top_->length()}));
    CHECK(!s.is_allocated);
    CHECK(s.length == chain.top_->length());
    check_undone();
  }
  void check_undone() {
    CHECK(chain.top_->bitmaps().is_empty());
    CHECK(chain.top_->blockers().all().empty());
    CHECK(chain.mid_->blockers().all().empty());
    CHECK(chain.mid_->is_read_only());
    for (const auto& e : chain.top_->children())
      CHECK(!e->is_frozen());
  }
  bool has_base(const std::vector<std::byte>& wanted) {
    return chain.content(*chain.mid_) == wanted;
  }

  chain_bench chain;
  background beside;
  job_list list_;

private:
  job_description what_;
};

// A guest, who keeps a byte array beside what he writes.
struct guest {
  std::vector<std::byte> model;
  std::mt19937_64 random;
  bool is_over = false;
  u64 writes = 0;

  task<void> run(root& disk) {
    while (!is_over) {
      co_await write_once(disk);
      co_await sleep_for(std::chrono::nanoseconds(0));
    }
  }
  task<void> write_once(root& disk) {
    const u64 offset = random() % disk.length();
    const u64 length = std::min(1 + random() % 30000, disk.length() - offset);
    writes++;
    if (random() % 4 == 0) {
      co_await disk.write_zeroes({offset, length}, random() % 2 == 0 ? write_flag::may_unmap : 0);
      std::fill_n(model.begin() + static_cast<i64>(offset), length, std::byte{0});
    } else {
      const std::vector<std::byte> bytes = pattern(length, random());
      co_await disk.write(offset, bytes);
      std::ranges::copy(bytes, model.begin() + static_cast<i64>(offset));
    }
  }
};

} // namespace

TEST_CASE("commit in use: the overlay is empty afterwards, and nothing is left of the job") {
  commit_bench c;
  c.chain.scribble(7);
  const std::vector<std::byte> before = c.chain.content();
  const job_pointer j = c.begin();
  c.chain.b_.bench.must(j->ended());
  CHECK(c.chain.content() == before);
  CHECK(c.has_base(before));
  c.check_empty();
  CHECK(j->done() == j->total());
  CHECK(j->total() >= disk_length);
}

TEST_CASE("commit in use: a disk that ends within a block of the bitmap, and one of no bytes") {
  for (const u64 length : {u64{0}, u64{512}, u64{70000} / 512 * 512, u64{1 << 20} - 512}) {
    CAPTURE(length);
    commit_bench c({}, length);
    if (length > 0)
      c.chain.scribble(length);
    const std::vector<std::byte> before = c.chain.content();
    const result<> done = c.run();
    CHECK_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
    CHECK(c.chain.content() == before);
    CHECK(c.has_base(before));
    c.check_undone();
  }
}

TEST_CASE("commit in use: what a guest writes meanwhile gets there, too") {
  for (u64 seed = 1; seed <= 12; seed++) {
    CAPTURE(seed);
    commit_bench c;
    c.chain.scribble(seed);
    guest g{.model = c.chain.content(), .random = std::mt19937_64(seed)};
    c.beside.spawn(g.run(*c.chain.root_));
    const result<> done = c.run();
    CHECK_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
    CHECK(g.writes > 0);
    g.is_over = true;
    CHECK(c.beside.finish().has_value());
    CHECK(c.chain.content() == g.model);
    c.check_undone();
    // Once more, with nobody writing, the base has all of it.
    CHECK(c.run().has_value());
    CHECK(c.has_base(g.model));
    c.check_empty();
  }
}

TEST_CASE("commit in use: paused, resumed and cancelled at random under a guest, nothing is lost") {
  unsigned cancelled = 0;
  for (u64 seed = 1; seed <= 25; seed++) {
    CAPTURE(seed);
    std::mt19937_64 random(seed * 77);
    commit_bench c({.waits_to_complete = seed % 3 == 0});
    c.chain.scribble(seed);
    guest g{.model = c.chain.content(), .random = std::mt19937_64(seed)};
    c.beside.spawn(g.run(*c.chain.root_));
    const job_pointer j = c.begin();
    for (int i = 0; i < 30 && !j->is_over(); i++) {
      c.chain.b_.bench.must(sleep_for(std::chrono::nanoseconds(0)));
      switch (random() % 10) {
      case 0:
        (void)j->cancel();
        break;
      case 1:
      case 2:
        (void)j->pause();
        break;
      case 3:
      case 4:
        (void)j->resume();
        break;
      default:
        c.beside.settle();
      }
    }
    while (!j->is_over()) {
      (void)j->resume();
      if (j->state() == job_state::ready)
        (void)j->complete();
      c.beside.settle();
    }
    cancelled += j->was_cancelled() ? 1 : 0;
    CHECK((j->failure() != nullptr) == j->was_cancelled());
    g.is_over = true;
    CHECK(c.beside.finish().has_value());
    CHECK(c.chain.content() == g.model);
    c.check_undone();
    CHECK(c.run().has_value());
    CHECK(c.chain.content() == g.model);
    CHECK(c.has_base(g.model));
  }
  CHECK(cancelled > 3);
  CHECK(cancelled < 25);
}

TEST_CASE("commit in use: a guest who writes without a rest is held back, and the commit ends") {
  commit_bench c({}, 32 << 20);
  guest g{.model = c.chain.content(), .random = std::mt19937_64(3)};
  // More than the last step takes, in each pass.
  struct flood {
    static task<void> run(root& disk, guest& g, u64 begin) {
      const std::vector<std::byte> block = pattern(1 << 20, 1);
      for (u64 at = begin; !g.is_over; at = (at + block.size()) % disk.length()) {
        co_await disk.write(at, block);
        std::ranges::copy(block, g.model.begin() + static_cast<i64>(at));
        g.writes++;
      }
    }
  };
  for (u64 i = 0; i < 16; i++) // twice what a copy has in flight
    c.beside.spawn(flood::run(*c.chain.root_, g, i * (2 << 20)));
  const result<> done = c.run();
  CHECK_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
  g.is_over = true;
  CHECK(c.beside.finish().has_value());
  CHECK(g.writes > 16);
  CHECK(c.chain.content() == g.model);
  c.check_undone();
}

TEST_CASE("commit in use: while it is paused the base is not touched and the guest goes on") {
  commit_bench c;
  c.chain.scribble(4);
  std::vector<std::byte> wanted = c.chain.content();
  const job_pointer j = c.begin();
  CHECK(j->pause().has_value());
  c.await_state(*j, job_state::paused);
  const std::vector<std::byte> base = memory_disks()["mid"]->bytes;
  c.chain.b_.bench.must(c.chain.root_->write(4096, pattern(4096, 8)));
  std::ranges::copy(pattern(4096, 8), wanted.begin() + 4096);
  CHECK(memory_disks()["mid"]->bytes == base);
  CHECK(j->resume().has_value());
  c.chain.b_.bench.must(j->ended());
  CHECK(c.chain.content() == wanted);
  CHECK(c.has_base(wanted));
  c.check_empty();
}

TEST_CASE("commit in use: one that waits to be completed goes on copying what is written") {
  commit_bench c({.waits_to_complete = true});
  c.chain.scribble(2);
  std::vector<std::byte> wanted = c.chain.content();
  const job_pointer j = c.begin();
  c.await_state(*j, job_state::ready);
  CHECK(c.chain.content() == wanted);
  CHECK(!c.chain.top_->bitmaps().is_empty());
  const std::vector<std::byte> fresh = pattern(8192, 21);
  c.chain.b_.bench.must(c.chain.root_->write(65536, fresh));
  std::ranges::copy(fresh, wanted.begin() + 65536);
  CHECK(j->complete().has_value());
  c.chain.b_.bench.must(j->ended());
  CHECK(c.chain.content() == wanted);
  CHECK(c.has_base(wanted));
  c.check_empty();
}

TEST_CASE("commit in use: meanwhile both nodes are left as they are, and the job is named") {
  commit_bench c;
  c.chain.scribble(6);
  const job_pointer j = c.begin();
  CHECK(j->pause().has_value());
  c.await_state(*j, job_state::paused);
  root& disk = *c.chain.root_;
  for (const result<>& refused : {c.chain.b_.bench.run(disk.truncate(2 * disk_length)),
                                  c.chain.top_->check_operation(node_operation::internal_snapshot),
                                  c.chain.top_->check_operation(node_operation::commit_source),
                                  c.chain.top_->check_may_change(),
                                  c.chain.mid_->check_operation(node_operation::commit_target)}) {
    REQUIRE(!refused.has_value());
    CHECK(refused.error().kind() == error_kind::busy);
    CHECK_MESSAGE(refused.error().message().contains("job 'commit-top'"),
                  refused.error().message());
  }
  CHECK(c.chain.top_->check_operation(node_operation::dirty_bitmap).has_value());
  CHECK(j->cancel().has_value());
  (void)c.chain.b_.bench.run(j->ended());
  c.check_undone();
}

TEST_CASE(
    "commit in use: whatever fails, the disk reads as before and nothing is left of the job") {
  u64 nth = 1;
  unsigned failed = 0;
  for (bool has_failed = true; has_failed; nth++) {
    CAPTURE(nth);
    commit_bench c({}, 256 << 10);
    c.chain.scribble(5);
    const std::vector<std::byte> before = c.chain.content();
    u64 seen = 0;
    const auto fault = [&](std::string_view, byte_range) -> std::optional<error> {
      if (++seen != nth)
        return std::nullopt;
      return error::from_errno(EIO, "the test says so");
    };
    for (const char* disk : {"mid", "top"})
      memory_disks()[disk]->fault = fault;
    const job_pointer j = c.begin();
    const result<> done = c.chain.b_.bench.run(j->ended());
    has_failed = seen >= nth;
    for (const char* disk : {"mid", "top"})
      memory_disks()[disk]->fault = nullptr;
    failed += done ? 0 : 1;
    CHECK(j->is_over());
    CHECK(c.chain.content() == before);
    CHECK(c.chain.top_->bitmaps().is_empty());
    CHECK(c.chain.top_->blockers().all().empty());
  }
  CHECK(nth > 20);
  CHECK(failed > 10);
}

TEST_CASE(
    "commit in use: an error of the base leaves what a guest writes meanwhile in the overlay") {
  for (u64 seed = 1; seed <= 8; seed++) {
    CAPTURE(seed);
    commit_bench c;
    c.chain.scribble(seed);
    guest g{.model = c.chain.content(), .random = std::mt19937_64(seed)};
    u64 seen = 0;
    memory_disks()["mid"]->fault = [&](std::string_view what, byte_range) -> std::optional<error> {
      if (what != "write" || ++seen < 2 * seed)
        return std::nullopt;
      return error::from_errno(ENOSPC, "the test says so");
    };
    c.beside.spawn(g.run(*c.chain.root_));
    const result<> done = c.run();
    g.is_over = true;
    CHECK(c.beside.finish().has_value());
    REQUIRE(!done.has_value());
    CHECK(done.error().message().contains("the test says so"));
    CHECK(done.error().message().contains(
        "has only a part of it now, and what is above it still has all"));
    CHECK(done.error().kind() == error_kind::no_space);
    memory_disks()["mid"]->fault = nullptr;
    CHECK(c.chain.content() == g.model);
    CHECK(c.chain.top_->bitmaps().is_empty());
  }
}

TEST_CASE("commit at a pace: layers that nobody writes to are merged under a job, and cancelled") {
  for (const bool is_cancelled : {false, true}) {
    commit_bench c;
    c.chain.scribble(11);
    const std::vector<std::byte> before = c.chain.content();
    const std::vector<std::byte> old = c.chain.content(*c.chain.base_);
    const auto made = c.list_.start(
        {.id = "merge-top", .type = "merge", .has_pause_points = true}, [&](job& control) {
          return commit_layers({.top = c.chain.root_, .base = c.chain.base_, .control = &control});
        });
    REQUIRE(made.has_value());
    CHECK((*made)->pause().has_value());
    c.await_state(**made, job_state::paused);
    CHECK(c.chain.content(*c.chain.base_) == old);
    if (is_cancelled)
      CHECK((*made)->cancel().has_value());
    else
      CHECK((*made)->resume().has_value());
    const result<> done = c.chain.b_.bench.run((*made)->ended());
    CHECK(done.has_value() != is_cancelled);
    CHECK(c.chain.content() == before);
    CHECK((c.chain.content(*c.chain.base_) == before) != is_cancelled);
    CHECK(c.chain.base_->is_read_only());
  }
}
