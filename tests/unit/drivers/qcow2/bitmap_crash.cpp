// SPDX-License-Identifier: MIT
// What the disk looks like if we stop anywhere while an image with bitmaps is opened, written,
// changed and closed: each bitmap either says that it is out of date, or has a bit for all that
// differs from when it was clean - of what the disk holds then, not of what was asked for.
#include "tests/unit/drivers/qcow2/bitmap_bench.h"
#include "tests/unit/drivers/qcow2/crash_replay.h"
#include "tests/unit/lib/repetitions.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

using content = std::vector<std::byte>;

struct crash_shape {
  option_list create;
  option_list open;
  u64 cluster;
};

// From an event of the log on, until the next of the same bitmap.
struct known_bitmap {
  std::size_t from = 0;
  bool is_there = false;
  u64 granularity = 0;
  content clean; // the disk when it was last clean
};

class bitmap_crash_run {
public:
  bitmap_crash_run(const crash_shape& s, u64 seed) : s_(s), random_(seed) {
    disk_ = &b_.create("d", 24 * s.cluster, s.create);
    model_.resize(24 * s.cluster);
    open();
    for (int i = 0; i < 4; i++)
      write();
    add("kept");
    add("other");
    close();
    start_ = disk_->bytes;
    for (auto& [name, all] : known_)
      all.back().from = 0;
    disk_->keeps_log = true;
    open();
    for (int i = 0; i < 40; i++)
      step();
    close();
    disk_->keeps_log = false;
  }
  void check_cuts() {
    for_each_cut(start_, disk_->log, random_,
                 [this](const content& image, std::size_t cut) { check(image, cut); });
  }
  [[nodiscard]] u64 told() const { return told_; }
  [[nodiscard]] u64 in_use() const { return in_use_; }

private:
  void open() {
    root_ = &b_.open("d", s_.open);
    actions_.emplace(b_.bench, b_.top());
  }
  void close() {
    b_.close();
    actions_.reset();
  }
  void step() {
    const u64 kind = random_() % 20;
    if (kind < 8) {
      write();
    } else if (kind == 8) {
      const u64 offset = align_down(random_() % model_.size(), s_.cluster);
      b_.bench.must(root_->discard({offset, s_.cluster}));
      std::fill_n(model_.begin() + static_cast<i64>(offset), s_.cluster, std::byte{0});
    } else if (kind == 9) {
      b_.bench.must(root_->flush());
    } else if (kind < 13) {
      const std::string name = random_() % 2 == 0 ? "kept" : "other";
      if (is_there(name)) {
        // What the disk holds at this moment is what it is clean of.
        const std::size_t at = disk_->log.size();
        actions_->clear(name);
        known_[name].push_back({at, true, known_[name].back().granularity, model_});
      }
    } else if (kind == 13) {
      is_there("other") ? remove("other") : add("other");
    } else if (kind == 14 && is_there("other")) {
      actions_->merge("kept", b_.top(), "other"); // more bits never harm
    } else {
      close();
      open();
    }
  }
  [[nodiscard]] bool is_there(const std::string& name) { return known_[name].back().is_there; }
  void write() {
    const u64 offset = random_() % model_.size();
    const u64 length = std::min<u64>(1 + random_() % (2 * s_.cluster), model_.size() - offset);
    const auto bytes = pattern(length, random_());
    b_.bench.must(root_->write(offset, bytes));
    std::ranges::copy(bytes, model_.begin() + static_cast<i64>(offset));
  }
  void add(const std::string& name) {
    known_bitmap k{disk_->log.size(), true, name == "kept" ? 512u : 2048u, model_};
    actions_->add_persistent(name, k.granularity);
    known_[name].push_back(std::move(k));
  }
  void remove(const std::string& name) {
    actions_->remove(name);
    known_[name].push_back({.from = disk_->log.size()});
  }

  void check(const content& image, std::size_t cut) {
    const check_report report = check_image(image);
    REQUIRE_MESSAGE(report.errors.empty(), "cut " << cut << ": " << report.text());
    const content disk = read_disk(image);
    const auto stored = read_bitmaps(image);
    REQUIRE_MESSAGE(stored.contains("kept"), "cut " << cut);
    for (const auto& [name, b] : stored)
      check_bitmap(name, b, disk, cut);
    if (cut % 11 == 0)
      check_opens(image);
  }
  // What the last clear that had begun called clean. If the image is still that of before it, it
  // holds the same disk, and all the better.
  void check_bitmap(const std::string& name, const image_bitmap& b, const content& disk,
                    std::size_t cut) {
    if ((b.flags & 1) != 0) {
      in_use_++;
      return;
    }
    told_++;
    const known_bitmap* last = nullptr;
    for (const known_bitmap& k : known_[name])
      if (k.from <= cut)
        last = &k;
    REQUIRE_MESSAGE((last != nullptr && last->is_there), "cut " << cut << ": '" << name << "'");
    REQUIRE_MESSAGE(has_all(*last, b, disk),
                    "cut " << cut << ": bitmap '" << name << "' misses a change");
  }
  static bool has_all(const known_bitmap& k, const image_bitmap& b, const content& disk) {
    for (u64 i = 0; i < b.bits.size(); i++) {
      const u64 at = i * k.granularity;
      const u64 length = std::min(k.granularity, disk.size() - at);
      const bool is_same =
          std::memcmp(disk.data() + at, k.clean.data() + at, static_cast<std::size_t>(length)) == 0;
      if (!is_same && !b.bits[i])
        return false;
    }
    return true;
  }
  void check_opens(const content& image) {
    qcow2_bench again;
    again.place("copy", image);
    const std::string refused = again.open_error("copy", {{"read-only", "on"}});
    REQUIRE_MESSAGE(refused.empty(), refused);
    REQUIRE(is_same(memory_disks()["copy"]->bytes, image));
  }

  crash_shape s_;
  qcow2_bench b_;
  std::mt19937_64 random_;
  std::optional<bitmap_actions> actions_;
  memory_disk* disk_ = nullptr;
  root* root_ = nullptr;
  content start_, model_;
  std::map<std::string, std::vector<known_bitmap>> known_;
  u64 told_ = 0, in_use_ = 0;
};

const crash_shape shapes[] = {
    {{{"cluster_size", "512"}}, {}, 512},
    {{{"cluster_size", "512"}, {"refcount_bits", "64"}}, {{"overlap-check", "all"}}, 512},
    {{{"cluster_size", "1K"}}, {{"pass-discard-other", "on"}, {"l2-cache-size", "1"}}, 1024},
    {{{"cluster_size", "4K"}, {"lazy_refcounts", "on"}}, {}, 4096},
    {{{"cluster_size", "16K"}, {"extended_l2", "on"}}, {}, 16384},
};

} // namespace

TEST_CASE("qcow2 bitmaps: a crash at any point leaves none that is trusted and misses a change") {
  for (const crash_shape& s : shapes) {
    for (u64 seed = 1; seed <= repetitions(3); seed++) {
      CAPTURE(s.cluster);
      CAPTURE(seed);
      bitmap_crash_run run(s, seed);
      run.check_cuts();
      CHECK(run.told() > 0); // or this proves nothing
      CHECK(run.in_use() > 0);
    }
  }
}
