// SPDX-License-Identifier: MIT
// Random requests and random changes of bitmaps against models of both, over the shapes an image
// can have: what a bitmap says, in memory and in the image, is what was touched, no more and no
// less.
#include "graph/model/edit.h"
#include "tests/unit/drivers/qcow2/bitmap_bench.h"
#include "tests/unit/drivers/qcow2/modelled_disk.h"
#include "tests/unit/lib/repetitions.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

class bitmap_run : modelled_disk {
public:
  bitmap_run(const image_shape& s, u64 seed) : modelled_disk(s, seed) { start(); }

  void step() {
    const u64 kind = random_() % 100;
    if (kind < 30) {
      request();
    } else if (kind < 35) {
      resize_all();
    } else if (kind < 45) {
      add();
    } else if (kind < 50) {
      remove();
    } else if (kind < 58) {
      switch_one();
    } else if (kind < 66) {
      clear_one();
    } else if (kind < 74) {
      merge();
    } else if (kind < 82) {
      close_and_open();
    } else if (kind < 86) {
      become_read_only_and_back();
    } else {
      compare_one();
    }
  }
  void finish() {
    compare({0, model_.size()});
    b_.close();
    require_stored();
    require_content();
  }

private:
  void start() {
    open();
    actions_.emplace(b_.bench, b_.top());
  }
  void touched(byte_range r) {
    for (auto& [name, b] : bitmaps_)
      if (b.is_enabled)
        b.mark(r);
  }
  void request() {
    switch (random_() % 3) {
    case 0:
      write();
      break;
    case 1:
      zero();
      break;
    default:
      discard();
    }
    touched(touched_);
  }
  void resize_all() {
    resize();
    for (auto& [name, b] : bitmaps_)
      b.resize(model_.size());
  }
  std::string any() {
    return std::next(bitmaps_.begin(), static_cast<i64>(random_() % bitmaps_.size()))->first;
  }
  void add() {
    const std::string name = "b" + std::to_string(random_() % 12);
    if (bitmaps_.contains(name))
      return;
    modelled_bitmap b{.granularity = u64{512} << random_() % 8, .is_enabled = random_() % 4 != 0};
    actions_->add_persistent(name, b.granularity, b.is_enabled);
    b.resize(model_.size());
    bitmaps_[name] = std::move(b);
  }
  void remove() {
    if (bitmaps_.empty())
      return;
    const std::string name = any();
    actions_->remove(name);
    bitmaps_.erase(name);
  }
  void switch_one() {
    if (bitmaps_.empty())
      return;
    const std::string name = any();
    bool& is_enabled = bitmaps_[name].is_enabled;
    is_enabled = !is_enabled;
    is_enabled ? actions_->enable(name) : actions_->disable(name);
  }
  void clear_one() {
    if (bitmaps_.empty())
      return;
    const std::string name = any();
    actions_->clear(name);
    bitmaps_[name].clear();
  }
  void merge() {
    if (bitmaps_.empty())
      return;
    const std::string into = any(), from = any();
    actions_->merge(into, b_.top(), from);
    const modelled_bitmap source = bitmaps_[from];
    bitmaps_[into].merge(source, model_.size());
  }
  void compare_one() {
    if (bitmaps_.empty())
      return;
    const std::string name = any();
    REQUIRE(is_same_set(actions_->read(name).bits(), bitmaps_[name].bits));
  }
  void close_and_open() {
    b_.close();
    require_stored();
    start();
  }
  void require_stored() {
    require_sound(*disk_);
    const auto stored = read_bitmaps(disk_->bytes);
    REQUIRE(stored.size() == bitmaps_.size());
    for (const auto& [name, b] : bitmaps_) {
      CAPTURE(name);
      REQUIRE(stored.contains(name));
      const image_bitmap& found = stored.at(name);
      REQUIRE(found.flags == (b.is_enabled ? 2u : 0u));
      REQUIRE(found.granularity == b.granularity);
      REQUIRE(found.bits == b.bits);
    }
  }
  // In place: bitmaps are stored, and marked again by the next write.
  void become_read_only_and_back() {
    b_.bench.detach(*root_);
    node& top = b_.top();
    for (const bool is_read_only : {true, false}) {
      node_options generic = top.generic();
      generic.is_read_only = is_read_only;
      graph_edit edit;
      edit.reopens.push_back({&top, top.given(), generic});
      b_.bench.must(b_.bench.graph().apply(std::move(edit)));
      if (is_read_only)
        require_stored();
    }
    root_ = &b_.attach_again(may_resize);
  }

  std::optional<bitmap_actions> actions_;
  std::map<std::string, modelled_bitmap> bitmaps_;
};

const image_shape shapes[] = {
    {"defaults", {}, {}, 4 << 20},
    {"512-byte clusters", {{"cluster_size", "512"}}, {{"overlap-check", "all"}}, 256 << 10},
    {"1-bit refcounts", {{"cluster_size", "1K"}, {"refcount_bits", "1"}}},
    {"64-bit refcounts", {{"cluster_size", "1K"}, {"refcount_bits", "64"}}},
    {"2 MiB clusters", {{"cluster_size", "2M"}}, {}, 9 << 20},
    {"over a backing file", {{"cluster_size", "4K"}}, {}, 1 << 20, 700 << 10},
    {"extended L2", {{"cluster_size", "16K"}, {"extended_l2", "on"}}},
    {"lazy refcounts", {{"cluster_size", "4K"}, {"lazy_refcounts", "on"}}},
    {"external data file",
     {{"cluster_size", "4K"}, {"data_file", "data"}},
     {{"data-file", "data"}}},
    {"raw external data file",
     {{"cluster_size", "4K"}, {"data_file", "data"}, {"data_file_raw", "on"}},
     {{"data-file", "data"}}},
    {"LUKS", small_luks({{"cluster_size", "4K"}}), {}, 1 << 20, 0, "luks"},
};

} // namespace

TEST_CASE("qcow2 bitmaps: random requests and changes agree with a model, also in the image") {
  for (const image_shape& s : shapes) {
    for (u64 seed = 1; seed <= repetitions(3); seed++) {
      CAPTURE(s.name);
      CAPTURE(seed);
      bitmap_run run(s, seed);
      for (int i = 0; i < 120; i++)
        run.step();
      run.finish();
    }
  }
}
