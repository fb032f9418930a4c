// SPDX-License-Identifier: MIT
// Random requests, snapshots, reverts, deletions and resizes against plain byte arrays of the disk
// and of every snapshot, over the shapes an image can have.
#include "graph/base/text.h"
#include "tests/unit/drivers/qcow2/snapshot_bench.h"

#include <map>
#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

struct shape {
  const char* name;
  option_list create;
  option_list open = {};
  u64 length = 1 << 20;
  u64 backing = 0;
  std::size_t snapshots_max = 6; // what the width of the refcounts allows, less one
};

class snapshot_run {
public:
  snapshot_run(const shape& s, u64 seed) : shape_(s), random_(seed) {
    disk_ = &b_.create("d", s.length, s.create);
    for (const auto& [key, text] : s.create) {
      if (key == "cluster_size")
        cluster_ = *parse_size(text);
      is_v2_ = is_v2_ || (key == "compat" && text == "0.10");
    }
    if (s.backing != 0) {
      backing_ = pattern(s.backing, seed + 100);
      b_.place("base", backing_);
    }
    model_ = backing_;
    model_.resize(s.length);
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
    root_ = &b_.open("d", shape_.open, backing_.empty() ? "" : "base");
    actions_.emplace(b_.bench, b_.top());
  }
  void close() {
    b_.close();
    const check_report report = check_image(disk_->bytes);
    REQUIRE_MESSAGE(report.errors.empty(), report.text());
    REQUIRE_MESSAGE(report.leaks == 0, report.text());
    REQUIRE_MESSAGE(report.missing_copied == 0, report.text());
    REQUIRE(is_same(read_disk(disk_->bytes, backing_), model_));
    const auto found = read_snapshots(disk_->bytes, backing_);
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
  byte_range range() {
    const u64 unit = random_() % 3 == 0 ? cluster_ : random_() % 2 == 0 ? 512 : 1;
    const u64 most = random_() % 4 == 0 ? 6 * cluster_ : cluster_ / 2 + 1;
    const u64 offset = align_down(random_() % model_.size(), unit);
    const u64 length = std::max<u64>(align_down(random_() % most, unit), unit);
    return {offset, std::min<u64>(length, model_.size() - offset)};
  }
  void write() {
    const byte_range r = range();
    const auto bytes = pattern(r.length, random_());
    b_.bench.must(root_->write(r.offset, bytes));
    std::ranges::copy(bytes, model_.begin() + static_cast<i64>(r.offset));
  }
  void clear(byte_range r) {
    std::fill_n(model_.begin() + static_cast<i64>(r.offset), r.length, std::byte{0});
  }
  void zero() {
    const byte_range r = range();
    b_.bench.must(root_->write_zeroes(r, random_() % 2 == 0 ? write_flag::may_unmap : 0));
    clear(r);
  }
  void discard() {
    const byte_range r = range();
    b_.bench.must(root_->discard(r));
    const u64 begin = align_up(r.offset, cluster_);
    const u64 end = r.end() == model_.size() ? r.end() : align_down(r.end(), cluster_);
    if (begin < end && !(is_v2_ && !backing_.empty()))
      clear(byte_range::between(begin, end));
  }
  void create() {
    if (kept_.size() >= shape_.snapshots_max)
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
  void resize() {
    if (is_v2_ && !kept_.empty())
      return;
    const u64 length = align_up(shape_.length / 2 + random_() % (shape_.length * 2), 512);
    b_.bench.must(root_->truncate(length));
    model_.resize(length);
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
  void compare(byte_range r) {
    std::vector<std::byte> bytes(r.length);
    b_.bench.must(root_->read(r.offset, bytes));
    const auto expected = std::span(model_).subspan(r.offset, r.length);
    const auto differs = std::ranges::mismatch(bytes, expected);
    REQUIRE_MESSAGE(differs.in1 == bytes.end(),
                    "at " << r.offset + static_cast<u64>(differs.in1 - bytes.begin()));
  }

  shape shape_;
  qcow2_bench b_{std::vector<const driver_type*>{&internal_snapshot_driver_type}};
  std::mt19937_64 random_;
  std::optional<snapshot_actions> actions_;
  memory_disk* disk_ = nullptr;
  root* root_ = nullptr;
  u64 cluster_ = 65536;
  bool is_v2_ = false;
  std::vector<std::byte> backing_;
  std::vector<std::byte> model_;
  std::map<std::string, std::vector<std::byte>> kept_; // by id
  std::vector<view> views_;
  int views_opened_ = 0;
};

const shape shapes[] = {
    {"defaults", {}, {}, 1 << 20},
    {"512-byte clusters", {{"cluster_size", "512"}}, {}, 128 << 10},
    {"512-byte clusters, 64-bit refcounts, all checks",
     {{"cluster_size", "512"}, {"refcount_bits", "64"}},
     {{"overlap-check", "all"}},
     128 << 10},
    {"2-bit refcounts", {{"cluster_size", "1K"}, {"refcount_bits", "2"}}, {}, 256 << 10, 0, 1},
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
    {"the smallest caches",
     {{"cluster_size", "512"}},
     {{"l2-cache-size", "1"}, {"refcount-cache-size", "1"}},
     128 << 10},
};

} // namespace

TEST_CASE("qcow2 snapshots: random changes agree with byte arrays of the disk and each snapshot") {
  for (const shape& s : shapes) {
    for (u64 seed = 1; seed <= 3; seed++) {
      CAPTURE(s.name);
      CAPTURE(seed);
      snapshot_run run(s, seed);
      for (int i = 0; i < 150; i++)
        run.step();
      run.finish();
    }
  }
}
