// SPDX-License-Identifier: MIT
// What the disk looks like if we stop anywhere while snapshots are taken, reverted to, renamed and
// deleted: the list is the old or the new one, every snapshot on it holds what it held, and the
// disk is the old one, byte by byte the flushed or a later value, or the one reverted to as a
// whole.
#include "tests/unit/drivers/qcow2/crash_replay.h"
#include "tests/unit/drivers/qcow2/snapshot_bench.h"
#include "tests/unit/lib/repetitions.h"

#include <map>

using namespace bgfs;
using namespace bgfs::test;

namespace {

using content = std::vector<std::byte>;

struct kept_snapshot {
  std::string name;
  content disk;
  friend bool operator==(const kept_snapshot& a, const kept_snapshot& b) {
    return a.name == b.name && is_same(a.disk, b.disk);
  }
};
using snapshot_map = std::map<std::string, kept_snapshot>; // by id

struct flushed_state {
  std::size_t events;
  content disk;
};

struct guest_write {
  std::size_t begins;
  byte_range range;
  content bytes;
};

// A change of the list or of the disk as a whole.
struct change {
  std::size_t begins = 0;
  std::size_t ends = 0;
  snapshot_map after;
  bool is_revert = false;
  content disk; // of a revert
};

struct crash_shape {
  option_list create;
  option_list open;
  u64 cluster;
  u64 backing = 0;
};

class snapshot_crash_run {
public:
  snapshot_crash_run(const crash_shape& s, u64 seed) : s_(s), random_(seed) {
    disk_ = &b_.create("d", 20 * s.cluster, s.create);
    backing_ = pattern(s.backing, seed);
    if (s.backing != 0)
      b_.place("base", backing_);
    root_ = &b_.open("d", s.open, s.backing != 0 ? "base" : "");
    actions_.emplace(b_.bench, b_.top());
    model_ = backing_;
    model_.resize(20 * s.cluster);
    for (int i = 0; i < 6; i++)
      write();
    // One of another length, so that reverting to it changes that.
    create();
    b_.bench.must(root_->truncate(28 * s.cluster));
    model_.resize(28 * s.cluster);
    write();
    flush();
    start_ = disk_->bytes;
    first_ = kept_;
    changes_.clear();
    writes_.clear();
    flushes_ = {{0, model_}};
    disk_->keeps_log = true;
    for (int i = 0; i < 26; i++)
      step();
    disk_->keeps_log = false;
    b_.close();
  }
  void check_cuts() {
    for_each_cut(start_, disk_->log, random_,
                 [this](const content& image, std::size_t cut) { check(image, cut); });
  }
  [[nodiscard]] std::size_t changes() const { return changes_.size(); }

private:
  void step() {
    const u64 kind = random_() % 12;
    if (kind < 4) {
      write();
    } else if (kind == 4) {
      discard();
    } else if (kind == 5) {
      flush();
    } else if (kind < 8) {
      create();
    } else if (kind == 8) {
      revert();
    } else if (kind == 9) {
      rename();
    } else {
      remove();
    }
  }
  void note(u64 offset, content bytes) {
    std::ranges::copy(bytes, model_.begin() + static_cast<i64>(offset));
    writes_.push_back({disk_->log.size(), {offset, bytes.size()}, std::move(bytes)});
  }
  void write() {
    const u64 offset = random_() % model_.size();
    const u64 length = std::min<u64>(1 + random_() % (3 * s_.cluster), model_.size() - offset);
    note(offset, pattern(length, random_()));
    b_.bench.must(root_->write(offset, writes_.back().bytes));
  }
  void discard() {
    const u64 offset = align_down(random_() % model_.size(), s_.cluster);
    note(offset, content(std::min<u64>(s_.cluster, model_.size() - offset)));
    b_.bench.must(root_->discard(writes_.back().range));
  }
  void flush() {
    b_.bench.must(root_->flush());
    flushes_.push_back({disk_->log.size(), model_});
  }
  // What a change leaves is durable, and so is all that was written before it.
  void ended(change c) {
    c.ends = disk_->log.size();
    c.after = kept_;
    flushes_.push_back({c.ends, model_});
    changes_.push_back(std::move(c));
  }
  std::string any() {
    return std::next(kept_.begin(), static_cast<i64>(random_() % kept_.size()))->first;
  }
  void create() {
    change c{.begins = disk_->log.size(), .after = {}, .disk = {}};
    const std::string name = "s" + std::to_string(random_() % 100);
    const std::string id = actions_->create(name);
    kept_[id] = {name, model_};
    ended(std::move(c));
  }
  void revert() {
    if (kept_.empty())
      return;
    change c{.begins = disk_->log.size(), .after = {}, .is_revert = true, .disk = {}};
    const std::string id = any();
    actions_->revert(with_id(id));
    model_ = kept_.at(id).disk;
    c.disk = model_;
    ended(std::move(c));
  }
  void rename() {
    if (kept_.empty())
      return;
    change c{.begins = disk_->log.size(), .after = {}, .disk = {}};
    const std::string id = any();
    const std::string name = "a rather longer name " + std::to_string(random_() % 100);
    actions_->rename(with_id(id), name);
    kept_.at(id).name = name;
    ended(std::move(c));
  }
  void remove() {
    if (kept_.empty())
      return;
    change c{.begins = disk_->log.size(), .after = {}, .disk = {}};
    const std::string id = any();
    actions_->remove(with_id(id));
    kept_.erase(id);
    ended(std::move(c));
  }

  void check(const content& image, std::size_t cut) {
    const check_report report = check_image(image);
    REQUIRE_MESSAGE(report.errors.empty(), "cut " << cut << ": " << report.text());
    snapshot_map found;
    for (snapshot_content& s : read_snapshots(image, backing_))
      found[s.id] = {std::move(s.name), std::move(s.disk)};
    const snapshot_map* before = &first_;
    const change* running = nullptr;
    for (const change& c : changes_) {
      if (c.ends <= cut) {
        before = &c.after;
      } else if (c.begins <= cut && running == nullptr) {
        running = &c;
      }
    }
    const bool is_listed = found == *before || (running != nullptr && found == running->after);
    REQUIRE_MESSAGE(is_listed, "cut " << cut << ": the list is neither the old nor the new");
    const content disk = read_disk(image, backing_);
    if (running != nullptr && running->is_revert && is_same(disk, running->disk))
      return;
    check_disk(disk, cut);
  }
  // Byte by byte: the flushed value, or one that was written after that flush.
  void check_disk(const content& disk, std::size_t cut) {
    const auto last = std::ranges::find_if(flushes_.rbegin(), flushes_.rend(),
                                           [&](const flushed_state& f) { return f.events <= cut; });
    REQUIRE_MESSAGE(disk.size() == last->disk.size(), "cut " << cut);
    for (u64 at = 0; at < disk.size();) {
      const auto from = disk.begin() + static_cast<i64>(at);
      const auto differs =
          std::mismatch(from, disk.end(), last->disk.begin() + static_cast<i64>(at));
      if (differs.first == disk.end())
        return;
      at = static_cast<u64>(differs.first - disk.begin());
      const u64 length = written_since(last->events, cut, at, disk);
      REQUIRE_MESSAGE(length > 0, "cut " << cut << " of " << disk_->log.size() << ": guest byte "
                                         << at << " is neither old nor new");
      at += length;
    }
  }
  u64 written_since(std::size_t flush, std::size_t cut, u64 offset, const content& disk) const {
    u64 longest = 0;
    for (const guest_write& w : writes_) {
      if (w.begins < flush || w.begins > cut || !w.range.contains(offset))
        continue;
      const auto from = w.bytes.begin() + static_cast<i64>(offset - w.range.offset);
      const auto same = std::mismatch(from, w.bytes.end(), disk.begin() + static_cast<i64>(offset));
      longest = std::max(longest, static_cast<u64>(same.first - from));
    }
    return longest;
  }

  crash_shape s_;
  qcow2_bench b_;
  std::mt19937_64 random_;
  std::optional<snapshot_actions> actions_;
  memory_disk* disk_ = nullptr;
  root* root_ = nullptr;
  content start_, model_, backing_;
  snapshot_map kept_, first_;
  std::vector<flushed_state> flushes_;
  std::vector<guest_write> writes_;
  std::vector<change> changes_;
};

const crash_shape shapes[] = {
    {{{"cluster_size", "512"}}, {}, 512},
    {{{"cluster_size", "512"}, {"refcount_bits", "64"}}, {{"overlap-check", "all"}}, 512, 7000},
    {{{"cluster_size", "1K"}},
     {{"pass-discard-other", "on"}, {"l2-cache-size", "1"}, {"refcount-cache-size", "1"}},
     1024,
     30000},
    {{{"cluster_size", "1K"}, {"lazy_refcounts", "on"}}, {}, 1024},
    {{{"cluster_size", "16K"}, {"extended_l2", "on"}}, {}, 16384, 200000},
    {{{"cluster_size", "1K"}}, {{"discard-no-unref", "on"}, {"pass-discard-request", "on"}}, 1024},
    {{{"cluster_size", "4K"}, {"refcount_bits", "8"}}, {}, 4096},
};

} // namespace

TEST_CASE("qcow2 snapshots: a crash at any point loses no snapshot, and mixes no two disks") {
  std::size_t changes = 0;
  for (const crash_shape& s : shapes) {
    for (u64 seed = 1; seed <= repetitions(2); seed++) {
      CAPTURE(s.cluster);
      CAPTURE(seed);
      snapshot_crash_run run(s, seed);
      changes += run.changes();
      run.check_cuts();
    }
  }
  CHECK(changes > 20 * repetitions(2)); // or this proves nothing
}
