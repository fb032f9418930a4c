// SPDX-License-Identifier: MIT
// Every operation on the file fails once, in turn, while bitmaps are added, changed, stored and
// removed. What is left is sound; each bitmap in it says that it is out of date, or tells all that
// differs from when it was clean; and it can be gone on with.
#include "tests/unit/drivers/qcow2/bitmap_bench.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

using content = std::vector<std::byte>;

struct scenario {
  option_list create;
  u64 cluster;
};

class bitmap_fault_run {
public:
  bitmap_fault_run(const scenario& s, u64 nth, int os_error) : s_(s), nth_(nth) {
    disk_ = &b_.create("d", 24 * s.cluster, s.create);
    open();
    write(0);
    actions_->add_persistent("a", 512);
    clean_["a"] = read();
    write(1);
    REQUIRE(try_close());
    disk_->fault = [this, os_error](std::string_view, byte_range) -> std::optional<error> {
      if (++seen_ != nth_)
        return std::nullopt;
      return error::from_errno(os_error, "the test says so");
    };
  }
  // True if the fault came.
  bool run() {
    session([this] {
      write(2);
      write(3);
    });
    session([this] {
      change(actions_->addition("b", 1024, true), "b");
      write(4);
      change(actions_->change(bitmap_change::kind::clear, "a"), "a");
      write(5);
    });
    session([this] {
      write(6);
      (void)actions_->attempt(actions_->merging("a", *top_, "b"));
      if (actions_->attempt(actions_->change(bitmap_change::kind::remove, "b")))
        clean_.erase("b");
    });
    disk_->fault = nullptr;
    finish();
    return seen_ >= nth_;
  }

private:
  template<class Body>
  void session(Body body) {
    if (!try_open())
      REQUIRE(try_open()); // the second time it works
    body();
    (void)try_close(); // reported or not, below is what counts
    check();
  }
  bool try_open() {
    result<node*> opened = b_.bench.try_open(qcow2_bench::image_spec("d"));
    if (!opened) {
      REQUIRE_MESSAGE(seen_ >= nth_, opened.error().message());
      return false;
    }
    use(**opened);
    return true;
  }
  void open() { use(b_.bench.open(qcow2_bench::image_spec("d"))); }
  void use(node& opened) {
    top_ = &opened;
    root_ = &b_.bench.attach(opened, may_resize);
    actions_.emplace(b_.bench, opened);
  }
  result<> try_close() {
    b_.bench.detach(*root_);
    return b_.bench.run(b_.bench.graph().close(*top_));
  }
  void write(u64 index) {
    const u64 offset = index * 3 * s_.cluster + index * 100;
    (void)b_.bench.run(root_->write(offset, pattern(s_.cluster + 200, index)));
  }
  content read() {
    content bytes(root_->length());
    const result<> first = b_.bench.run(root_->read(0, bytes));
    if (!first)
      b_.bench.must(root_->read(0, bytes));
    return bytes;
  }
  void change(bitmap_change c, const std::string& name) {
    content now = read();
    if (actions_->attempt(std::move(c)))
      clean_[name] = std::move(now);
  }
  void check() {
    require_sound(*disk_, true);
    const content disk = read_disk(disk_->bytes);
    for (const auto& [name, b] : read_bitmaps(disk_->bytes)) {
      CAPTURE(name);
      if ((b.flags & 1) != 0 || !clean_.contains(name))
        continue;
      for (u64 i = 0; i < b.bits.size(); i++) {
        const u64 at = i * b.granularity;
        const u64 length = std::min(b.granularity, disk.size() - at);
        const bool is_same = std::memcmp(disk.data() + at, clean_[name].data() + at, length) == 0;
        REQUIRE_MESSAGE((is_same || b.bits[i]), "a change at " << at << " is missing");
      }
    }
  }
  // Whatever it was, the image and its bitmaps can be used again.
  void finish() {
    open();
    std::vector<std::string> broken;
    for (const auto& b : top_->bitmaps().all())
      if (b->is_inconsistent())
        broken.push_back(b->name());
    for (const std::string& name : broken)
      actions_->remove(name);
    for (const auto& b : top_->bitmaps().all())
      (void)actions_->read(b->name());
    actions_->add_persistent("last", 512);
    b_.bench.must(root_->write(0, pattern(512, 9)));
    REQUIRE(try_close());
    require_sound(*disk_, true);
    REQUIRE(read_bitmaps(disk_->bytes).at("last").bits[0]);
  }

  scenario s_;
  u64 nth_;
  u64 seen_ = 0;
  qcow2_bench b_;
  std::optional<bitmap_actions> actions_;
  memory_disk* disk_ = nullptr;
  node* top_ = nullptr;
  root* root_ = nullptr;
  std::map<std::string, content> clean_;
};

} // namespace

TEST_CASE("qcow2 bitmaps: any one operation may fail, and no bitmap lies afterwards") {
  const scenario scenarios[] = {
      {{{"cluster_size", "512"}}, 512},
      {{{"cluster_size", "1K"}, {"refcount_bits", "64"}}, 1024},
      {{{"cluster_size", "4K"}, {"lazy_refcounts", "on"}}, 4096},
  };
  for (const scenario& s : scenarios) {
    for (const int os_error : {EIO, ENOSPC}) {
      u64 faults = 0;
      for (u64 nth = 1;; nth++) {
        CAPTURE(s.cluster);
        CAPTURE(nth);
        bitmap_fault_run run(s, nth, os_error);
        if (!run.run())
          break;
        faults++;
      }
      CHECK(faults > 60);
    }
  }
}

TEST_CASE("qcow2 bitmaps: a store that fails is reported, and leaves the bitmaps marked") {
  bitmap_fixture f;
  f.actions->add_persistent("b", 512);
  f.close_and_open();
  f.write(0, 4096);
  f.b.bench.must(f.r->flush());
  f.disk->fault = [](std::string_view what, byte_range) -> std::optional<error> {
    if (what == "write")
      return error(error_kind::no_space, "full");
    return std::nullopt;
  };
  const result<> closed = f.b.try_close();
  REQUIRE(!closed);
  CHECK(closed.error().message().find("storing the bitmaps of node 'img-d' (qcow2)") == 0);
  f.disk->fault = nullptr;
  CHECK(f.stored("b").flags == 3);
  f.open();
  const dirty_bitmap* const b = f.actions->find("b");
  REQUIRE(b != nullptr);
  CHECK(b->is_inconsistent());
  f.actions->remove("b");
  f.close();
}
