// SPDX-License-Identifier: MIT
// Every operation on the file fails once, in turn, while snapshots are taken, reverted to, renamed
// and deleted. What failed has not happened, or says that it has; the next try works.
#include "tests/unit/drivers/qcow2/snapshot_bench.h"
#include "tests/unit/lib/repetitions.h"

#include <map>
#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct scenario {
  option_list create;
  option_list open;
  u64 cluster;
  u64 backing = 0;
};

class snapshot_fault_run {
public:
  snapshot_fault_run(const scenario& s, u64 nth, int os_error) : s_(s), nth_(nth) {
    disk_ = &b_.create("d", 40 * s.cluster, s.create);
    backing_ = pattern(s.backing, 1);
    if (s.backing != 0)
      b_.place("base", backing_);
    root_ = &b_.open("d", s.open, s.backing != 0 ? "base" : "");
    actions_.emplace(b_.bench, b_.top());
    model_ = backing_;
    model_.resize(40 * s.cluster);
    disk_->fault = [this, os_error](std::string_view, byte_range) -> std::optional<error> {
      if (++seen_ != nth_)
        return std::nullopt;
      return error::from_errno(os_error, "the test says so");
    };
  }
  // True if the fault came.
  bool run() {
    std::mt19937_64 random(5);
    for (int i = 0; i < 22 && !is_stopped_; i++)
      step(random, i);
    finish();
    return seen_ >= nth_;
  }

private:
  // Tried until it works; `happened` says of a failure whether it did its work all the same.
  template<class Try>
  bool attempt(Try once, std::string_view happened) {
    const result<> first = once();
    if (first)
      return true;
    const std::string& why = first.error().message();
    REQUIRE_MESSAGE(seen_ >= nth_, why);
    if (!happened.empty() && why.contains(happened))
      return true;
    const result<> second = once();
    is_stopped_ = !second && second.error().message().contains("takes no more writes");
    if (!is_stopped_)
      REQUIRE_MESSAGE(second.has_value(), second.error().message() << " after " << why);
    return !is_stopped_;
  }
  std::string any(std::mt19937_64& random) {
    return std::next(kept_.begin(), static_cast<i64>(random() % kept_.size()))->first;
  }
  void step(std::mt19937_64& random, int index) {
    switch (index % 11) {
    case 3:
    case 6:
      create("s" + std::to_string(index));
      break;
    case 8:
      revert(any(random));
      break;
    case 9:
      rename(any(random), "n" + std::to_string(index));
      break;
    case 10:
      remove(any(random));
      break;
    default:
      write(random);
    }
  }
  void write(std::mt19937_64& random) {
    const u64 offset = random() % model_.size();
    const u64 length = std::min<u64>(1 + random() % (3 * s_.cluster), model_.size() - offset);
    const auto bytes = pattern(length, random());
    if (attempt([&] { return b_.bench.run(root_->write(offset, bytes)); }, ""))
      std::ranges::copy(bytes, model_.begin() + static_cast<i64>(offset));
  }
  void create(const std::string& name) {
    std::string id;
    const auto once = [&]() -> result<> {
      const result<std::string> made = actions_->try_create(name);
      if (!made)
        return std::unexpected(made.error());
      id = *made;
      return {};
    };
    if (attempt(once, ""))
      kept_[id] = {name, model_};
    check_list();
  }
  void revert(const std::string& id) {
    if (attempt([&] { return actions_->try_revert(with_id(id)); }, "the disk is that of"))
      model_ = kept_.at(id).second;
    check_list();
  }
  void rename(const std::string& id, const std::string& name) {
    const auto once = [&] {
      return b_.bench.run(b_.bench.graph().rename_snapshot(b_.top(), with_id(id), name));
    };
    if (attempt(once, ""))
      kept_.at(id).first = name;
    check_list();
  }
  void remove(const std::string& id) {
    if (attempt([&] { return actions_->try_remove(with_id(id)); }, "is deleted, but"))
      kept_.erase(id);
    check_list();
  }
  void check_list() {
    if (is_stopped_)
      return;
    const auto all = actions_->list();
    REQUIRE(all.size() == kept_.size());
    for (const snapshot_info& s : all)
      REQUIRE(kept_.at(s.id).first == s.name);
  }
  void finish() {
    const auto faults = std::exchange(disk_->fault, nullptr);
    if (!is_stopped_)
      REQUIRE(read_all(b_.bench, *root_) == model_);
    disk_->fault = faults;
    const result<> closed = b_.try_close();
    disk_->fault = nullptr;
    require_sound(*disk_, true);
    if (is_stopped_ || !closed)
      return;
    REQUIRE(read_disk(disk_->bytes, backing_) == model_);
    for (const snapshot_content& s : read_snapshots(disk_->bytes, backing_))
      REQUIRE(s.disk == kept_.at(s.id).second);
  }

  scenario s_;
  u64 nth_;
  u64 seen_ = 0;
  qcow2_bench b_;
  std::optional<snapshot_actions> actions_;
  memory_disk* disk_ = nullptr;
  root* root_ = nullptr;
  std::vector<std::byte> model_, backing_;
  std::map<std::string, std::pair<std::string, std::vector<std::byte>>> kept_; // by id
  bool is_stopped_ = false;
};

const scenario scenarios[] = {
    {{{"cluster_size", "512"}, {"refcount_bits", "64"}}, {}, 512},
    {{{"cluster_size", "512"}}, {{"l2-cache-size", "1"}, {"refcount-cache-size", "1"}}, 512, 9000},
    {{{"cluster_size", "1K"}, {"lazy_refcounts", "on"}}, {{"overlap-check", "all"}}, 1024},
    {{{"cluster_size", "16K"}, {"extended_l2", "on"}}, {}, 16384, 100000},
};

} // namespace

TEST_CASE("qcow2 snapshots: any single failure of the file leaves all or nothing of a change") {
  for (const int os_error : {EIO, ENOSPC}) {
    for (const scenario& s : scenarios) {
      const u64 step = (os_error == EIO ? 1 : 3) * (is_sanitized ? 3 : 1);
      u64 nth = 1;
      for (bool came = true; came; nth += step) {
        CAPTURE(s.cluster);
        CAPTURE(nth);
        came = snapshot_fault_run(s, nth, os_error).run();
      }
      CHECK(nth > 100); // the script does reach the disk
    }
  }
}

TEST_CASE("qcow2 snapshots: one that could not be taken leaves no trace, whatever failed") {
  bool came = true;
  for (u64 nth = 1; came; nth++) {
    CAPTURE(nth);
    qcow2_bench b;
    memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "512"}});
    root& way = b.open("d", {{"l2-cache-size", "1"}, {"refcount-cache-size", "1"}});
    const snapshot_actions actions{b.bench, b.top()};
    for (u64 at = 0; at < 1 << 20; at += 50000)
      b.bench.must(way.write(at, pattern(3000, at)));
    b.bench.must(way.flush());
    u64 seen = 0;
    disk.fault = [&](std::string_view, byte_range) -> std::optional<error> {
      if (++seen != nth)
        return std::nullopt;
      return error::from_errno(EIO, "the test says so");
    };
    const result<std::string> made = actions.try_create("s");
    came = seen >= nth;
    disk.fault = nullptr;
    CHECK(made.has_value() == !came);
    CHECK(actions.list().size() == (came ? 0u : 1u));
    b.close();
    require_sound(disk);
    CHECK(check_image(disk.bytes).missing_copied == 0);
  }
}

TEST_CASE("qcow2 snapshots: a full medium refuses a snapshot, and nothing else becomes slower") {
  for (const u64 slack : {0u, 300u, 512u, 2048u}) {
    CAPTURE(slack);
    qcow2_bench b;
    memory_disk& disk = b.create("d", 1 << 20, {{"cluster_size", "4K"}});
    root& way = b.open("d");
    const snapshot_actions actions{b.bench, b.top()};
    b.bench.must(way.write(0, pattern(50000, 1)));
    b.bench.must(way.flush());
    disk.length_max = disk.bytes.size() + slack;
    const result<std::string> made = actions.try_create("s");
    REQUIRE(!made);
    CHECK(made.error().kind() == error_kind::no_space);
    CHECK(actions.list().empty());
    // What was going to be shared is the disk's own again: it is overwritten in place.
    b.bench.must(way.write(0, pattern(50000, 2)));
    b.close();
    require_sound(disk);
    CHECK(check_image(disk.bytes).missing_copied == 0);
  }
}
