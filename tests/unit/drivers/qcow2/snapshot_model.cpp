// SPDX-License-Identifier: MIT
// Random requests, snapshots, reverts, deletions and resizes against plain byte arrays of the disk
// and of every snapshot, over the shapes an image can have.
#include "tests/unit/drivers/qcow2/modelled_disk.h"
#include "tests/unit/drivers/qcow2/snapshot_bench.h"
#include "tests/unit/lib/repetitions.h"

#include <map>

using namespace bgfs;
using namespace bgfs::test;

namespace {

class snapshot_run : modelled_disk {
public:
  snapshot_run(const image_shape& s, u64 seed)
      : modelled_disk(s, seed, {&internal_snapshot_driver_type}) {
    // What the width of the refcounts allows, less one.
    const std::string bits = s.created_with("refcount_bits");
    if (bits == "2")
      snapshots_max_ = 1;
    if (bits == "2" || bits == "4") // clusters that share their place are counted often enough
      compresses_ = false;
    open();
  }

  void step() {
    const u64 kind = random_() % 100;
    if (kind < 35) {
      write();
    } else if (kind < 43) {
      zero();
    } else if (kind < 52) {
      discard();
    } else if (kind < 64) {
      create();
    } else if (kind < 72) {
      revert();
    } else if (kind < 81) {
      remove();
    } else if (kind < 85) {
      resize();
    } else if (kind < 88) {
      b_.bench.must(root_->flush());
    } else if (kind < 91) {
      reopen();
    } else if (kind < 95) {
      look();
    } else {
      compare(range());
    }
  }
  void finish() {
    compare({0, model_.size()});
    while (!views_.empty())
      close_view(views_.begin());
    close();
  }

private:
  void open() {
    modelled_disk::open();
    actions_.emplace(b_.bench, b_.top());
  }
  void close() {
    b_.close();
    const check_report report = check_image(disk_->bytes);
    REQUIRE_MESSAGE(report.errors.empty(), report.text());
    REQUIRE_MESSAGE(report.leaks == 0, report.text());
    REQUIRE_MESSAGE(report.missing_copied == 0, report.text());
    require_content();
    const auto found = read_snapshots(disk_->bytes, backing_, decrypt_);
    REQUIRE(found.size() == kept_.size());
    for (const snapshot_content& s : found)
      REQUIRE_MESSAGE(is_same(s.disk, kept_.at(s.id)), s.id);
  }
  void reopen() {
    while (!views_.empty())
      close_view(views_.begin());
    close();
    open();
  }
  void create() {
    if (kept_.size() >= snapshots_max_)
      return remove();
    const std::string name = "s" + std::to_string(random_() % 4); // not unique
    const std::string id = actions_->create(name);
    REQUIRE(!kept_.contains(id));
    kept_[id] = model_;
  }
  std::string any() {
    return std::next(kept_.begin(), static_cast<i64>(random_() % kept_.size()))->first;
  }
  void revert() {
    if (kept_.empty())
      return;
    const std::string id = any();
    actions_->revert(with_id(id));
    model_ = kept_.at(id);
    REQUIRE(root_->length() == model_.size());
  }
  void remove() {
    if (kept_.empty())
      return;
    const std::string id = any();
    const bool is_open = std::ranges::any_of(views_, [&](const auto& v) { return v.id == id; });
    const result<> gone = actions_->try_remove(with_id(id));
    REQUIRE_MESSAGE(gone.has_value() == !is_open, (gone ? "" : gone.error().message()));
    if (is_open) {
      REQUIRE(gone.error().kind() == error_kind::busy);
    } else {
      kept_.erase(id);
    }
  }
  // Version 2 has no lengths of snapshots.
  void resize() {
    if (!is_v2() || kept_.empty())
      modelled_disk::resize();
  }

  struct view {
    std::string id;
    node* shown;
    root* way;
  };
  // Opens another one, reads a part of those that are open, or closes one.
  void look() {
    if (!kept_.empty() && views_.size() < 4) {
      const std::string id = any();
      node& shown =
          b_.bench.open(view_spec("view" + std::to_string(views_opened_++), "img-d", with_id(id)));
      views_.push_back({id, &shown, &b_.bench.attach(shown, may_read)});
    }
    for (const view& v : views_) {
      const auto& expected = kept_.at(v.id);
      REQUIRE(v.way->length() == expected.size());
      REQUIRE(is_same(read_all(b_.bench, *v.way), expected));
    }
    if (!views_.empty() && random_() % 3 == 0)
      close_view(views_.begin());
  }
  void close_view(std::vector<view>::iterator v) {
    b_.bench.detach(*v->way);
    b_.bench.must(b_.bench.graph().close(*v->shown));
    views_.erase(v);
  }

  std::optional<snapshot_actions> actions_;
  std::size_t snapshots_max_ = 6;
  std::map<std::string, std::vector<std::byte>> kept_; // by id
  std::vector<view> views_;
  int views_opened_ = 0;
};

const image_shape shapes[] = {
    {"defaults", {}, {}, 1 << 20},
    {"512-byte clusters", {{"cluster_size", "512"}}, {}, 128 << 10},
    {"512-byte clusters, 64-bit refcounts, all checks",
     {{"cluster_size", "512"}, {"refcount_bits", "64"}},
     {{"overlap-check", "all"}},
     128 << 10},
    {"2-bit refcounts", {{"cluster_size", "1K"}, {"refcount_bits", "2"}}, {}, 256 << 10},
    {"4-bit refcounts", {{"cluster_size", "2K"}, {"refcount_bits", "4"}}, {}, 256 << 10},
    {"8-bit refcounts", {{"cluster_size", "4K"}, {"refcount_bits", "8"}}, {}, 256 << 10},
    {"32-bit refcounts", {{"cluster_size", "4K"}, {"refcount_bits", "32"}}, {}, 256 << 10},
    {"2 MiB clusters", {{"cluster_size", "2M"}}, {}, 5 << 20},
    {"version 2", {{"compat", "0.10"}, {"cluster_size", "4K"}}, {}, 256 << 10},
    {"version 2 over a backing file",
     {{"compat", "0.10"}, {"cluster_size", "4K"}},
     {},
     256 << 10,
     170 << 10},
    {"shorter than its backing file", {{"cluster_size", "4K"}}, {}, 256 << 10, 600 << 10},
    {"longer than its backing file", {{"cluster_size", "8K"}}, {}, 512 << 10, 200001},
    {"extended L2", {{"cluster_size", "16K"}, {"extended_l2", "on"}}},
    {"extended L2 over a backing file, all checks",
     {{"cluster_size", "32K"}, {"extended_l2", "on"}},
     {{"overlap-check", "all"}},
     1 << 20,
     600000},
    {"lazy refcounts", {{"cluster_size", "4K"}, {"lazy_refcounts", "on"}}, {}, 256 << 10},
    {"kept references",
     {{"cluster_size", "4K"}},
     {{"discard-no-unref", "on"}, {"pass-discard-request", "on"}},
     256 << 10},
    {"LUKS over a backing file",
     small_luks({{"cluster_size", "4K"}}),
     {},
     256 << 10,
     100001,
     "luks"},
    {"LUKS with extended L2",
     small_luks({{"cluster_size", "16K"}, {"extended_l2", "on"}}),
     {},
     512 << 10,
     0,
     "luks"},
    {"AES of before LUKS", {{"cluster_size", "4K"}}, {}, 256 << 10, 0, "aes"},
    {"the smallest caches",
     {{"cluster_size", "512"}},
     {{"l2-cache-size", "1"}, {"refcount-cache-size", "1"}},
     128 << 10},
};

} // namespace

TEST_CASE("qcow2 snapshots: random changes agree with byte arrays of the disk and each snapshot") {
  for (const image_shape& s : shapes) {
    for (u64 seed = 1; seed <= repetitions(3); seed++) {
      CAPTURE(s.name);
      CAPTURE(seed);
      snapshot_run run(s, seed);
      for (int i = 0; i < 150; i++)
        run.step();
      run.finish();
    }
  }
}
