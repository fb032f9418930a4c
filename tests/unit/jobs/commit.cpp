// SPDX-License-Identifier: MIT
#include "graph/jobs/commit.h"

#include "graph/jobs/commit_in_use.h"

#include "drivers/format/qcow2/qcow2.h"
#include "drivers/format/raw/raw.h"
#include "tests/unit/drivers/qcow2/qcow2_bench.h"
#include "tests/unit/lib/background.h"

#include <random>

using namespace bgfs;
using namespace bgfs::test;

namespace {

// Two overlays over a base, each a qcow2 image on a memory disk of its own but for the base, which
// may be raw: top -> mid -> base.
class chain_bench {
public:
  explicit chain_bench(u64 base_length, u64 mid_length, u64 top_length, bool has_raw_base)
      : b_({&raw_driver_type}) {
    const option_list small = {{"cluster_size", "4K"}};
    if (has_raw_base) {
      b_.place("base", pattern(base_length, 1));
    } else {
      b_.create("base", base_length, small);
    }
    b_.create("mid", mid_length, small);
    b_.create("top", top_length, small);
    spec_builder base("base", has_raw_base ? raw_driver_type : qcow2_driver_type);
    base.set("read-only", "on")
        .set("discard", "unmap")
        .child("file", disk_spec("base").set("read-only", "off"));
    base.no_backing = !has_raw_base;
    base_ = &b_.bench.open(base);
    mid_ = &b_.bench.open(layer("mid", "base", "on"));
    top_ = &b_.bench.open(layer("top", "mid", "off"));
    root_ = &b_.bench.attach(*top_, may_resize);
  }
  ~chain_bench() { b_.bench.detach(*root_); }

  void scribble(u64 seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < 20; i++) {
      const u64 offset = align_down(random() % root_->length(), 512);
      const u64 length =
          std::min(512 + align_down(random() % 20000, 512), root_->length() - offset);
      if (random() % 3 == 0)
        b_.bench.must(root_->write_zeroes({offset, length}, write_flag::may_unmap));
      else
        b_.bench.must(root_->write(offset, pattern(length, random())));
    }
  }
  result<> commit(node& into) { return b_.bench.run(commit_layers({.top = root_, .base = &into})); }
  std::vector<std::byte> content() { return read_all(b_.bench, *root_); }
  std::vector<std::byte> content(node& n) {
    root& r = b_.bench.attach(n, may_read);
    std::vector<std::byte> bytes = read_all(b_.bench, r);
    b_.bench.detach(r);
    return bytes;
  }

  qcow2_bench b_;
  node* base_ = nullptr;
  node* mid_ = nullptr;
  node* top_ = nullptr;
  root* root_ = nullptr;

private:
  static spec_builder layer(const char* name, const char* below, const char* read_only) {
    spec_builder s(name, qcow2_driver_type);
    s.set("read-only", read_only).set("discard", "unmap");
    return s.child("file", disk_spec(name).set("read-only", "off")).child("backing", below);
  }
};

struct lengths {
  u64 base, mid, top;
};

} // namespace

TEST_CASE("commit: the layer below gets what the overlay holds, which reads the same, then empty") {
  for (const lengths& l : {lengths{1 << 20, 1 << 20, 1 << 20}, lengths{600 << 10, 1 << 20, 1 << 20},
                           lengths{1 << 20, 300 << 10, 1 << 20}, lengths{2 << 20, 1 << 20, 1 << 20},
                           lengths{1 << 20, 1 << 20, 700 << 10}}) {
    for (const bool has_raw_base : {false, true}) {
      for (const bool goes_deep : {false, true}) {
        CAPTURE(l.base);
        CAPTURE(l.mid);
        CAPTURE(l.top);
        CAPTURE(has_raw_base);
        CAPTURE(goes_deep);
        chain_bench c(l.base, l.mid, l.top, has_raw_base);
        c.scribble(l.base + l.mid);
        const std::vector<std::byte> before = c.content();
        node& into = goes_deep ? *c.base_ : *c.mid_;
        const std::vector<std::byte> old = c.content(into);
        const result<> done = c.commit(into);
        REQUIRE_MESSAGE(done.has_value(), (done ? std::string() : done.error().message()));
        CHECK(c.content() == before);
        std::vector<std::byte> below = c.content(into);
        CHECK(below.size() == std::max(old.size(), before.size()));
        CHECK(std::equal(before.begin(), before.end(), below.begin()));
        // What the overlay did not reach is as it was.
        for (u64 i = before.size(); i < below.size(); i++)
          REQUIRE(below[i] == old[i]);
        CHECK(into.is_read_only());
        if (!goes_deep) {
          c.b_.bench.must(c.b_.bench.graph().make_empty(*c.top_, graph::emptied::reads_the_same));
          CHECK(c.content() == before);
          const block_status s = c.b_.bench.must(c.top_->status({0, c.top_->length()}));
          CHECK(!s.is_allocated);
          CHECK(s.length == c.top_->length());
        }
      }
    }
  }
}

TEST_CASE("commit: whatever fails, the overlay reads as before, and can be committed again") {
  for (const bool goes_deep : {false, true}) {
    u64 nth = 1;
    for (bool has_failed = true; has_failed; nth++) {
      CAPTURE(nth);
      chain_bench c(200 << 10, 256 << 10, 256 << 10, false);
      c.scribble(3);
      const std::vector<std::byte> before = c.content();
      node& into = goes_deep ? *c.base_ : *c.mid_;
      u64 seen = 0;
      const auto fault = [&](std::string_view, byte_range) -> std::optional<error> {
        if (++seen != nth)
          return std::nullopt;
        return error::from_errno(EIO, "the test says so");
      };
      for (const char* disk : {"base", "mid", "top"})
        memory_disks()[disk]->fault = fault;
      const result<> done = c.commit(into);
      has_failed = seen >= nth;
      for (const char* disk : {"base", "mid", "top"})
        memory_disks()[disk]->fault = nullptr;
      CHECK(c.content() == before);
      if (done.has_value() || !into.is_active())
        continue;
      const result<> again = c.commit(into);
      if (again) {
        const std::vector<std::byte> below = c.content(into);
        CHECK(std::equal(before.begin(), before.end(), below.begin()));
      } else { // of the base nobody knows what it has on its disk until it is opened anew
        const std::string why = again.error().message();
        const bool says_so =
            why.contains("no more writes") || why.contains("has to be opened anew");
        CHECK_MESSAGE(says_so, why);
      }
      CHECK(c.content() == before);
    }
    CHECK(nth > 20);
  }
}

TEST_CASE("commit: who relies on the base keeps it as it is") {
  chain_bench c(1 << 20, 1 << 20, 1 << 20, false);
  c.scribble(1);
  const std::vector<std::byte> old = c.content(*c.mid_);
  root& other =
      c.b_.bench.attach(*c.mid_, {permission::consistent_read,
                                  permission::consistent_read | permission::write_unchanged});
  const result<> refused = c.commit(*c.mid_);
  REQUIRE(!refused.has_value());
  CHECK(refused.error().kind() == error_kind::busy);
  CHECK(c.mid_->is_read_only());
  c.b_.bench.detach(other);
  CHECK(c.content(*c.mid_) == old);
  const auto token = c.mid_->blockers().add(bit(node_operation::commit_target), "the test says so");
  const result<> forbidden = c.commit(*c.mid_);
  REQUIRE(!forbidden.has_value());
  CHECK(forbidden.error().message().contains("cannot be used for 'commit-target' now: the test"));
  c.mid_->blockers().remove(token);
  CHECK(c.commit(*c.mid_).has_value());
}

TEST_CASE("commit in use: the overlay is empty afterwards, and no bitmap is left") {
  chain_bench c(1 << 20, 1 << 20, 1 << 20, false);
  c.scribble(7);
  const std::vector<std::byte> before = c.content();
  c.b_.bench.must(commit_in_use({.top = c.root_, .base = c.mid_}, *c.top_));
  CHECK(c.content() == before);
  CHECK(c.content(*c.mid_) == before);
  const block_status s = c.b_.bench.must(c.top_->status({0, c.top_->length()}));
  CHECK(!s.is_allocated);
  CHECK(c.top_->bitmaps().is_empty());
  CHECK(c.mid_->is_read_only());
}

TEST_CASE("commit in use: who writes meanwhile keeps the overlay from being emptied") {
  for (const bool is_before_the_end : {false, true}) {
    chain_bench c(1 << 20, 1 << 20, 1 << 20, false);
    c.scribble(9);
    std::vector<std::byte> wanted = c.content();
    const std::vector<std::byte> fresh = pattern(4096, 99);
    background work(c.b_.bench);
    u64 calls = 0;
    const auto progress = [&](u64 done, u64 total) {
      if (is_before_the_end == (done == total) && calls++ == 0)
        work.spawn(c.root_->write(512 << 10, fresh));
    };
    const result<> done = c.b_.bench.run(
        commit_in_use({.top = c.root_, .base = c.mid_, .progress = progress}, *c.top_));
    CHECK(work.finish().has_value());
    REQUIRE(calls > 0);
    std::ranges::copy(fresh, wanted.begin() + (512 << 10));
    CHECK(c.content() == wanted);
    CHECK((!done.has_value() || is_before_the_end)); // the last moment may be too late to count
    if (!done) {
      CHECK(done.error().kind() == error_kind::busy);
      CHECK(done.error().message().contains("was written to while it was committed"));
    }
    CHECK(c.top_->bitmaps().is_empty());
    c.b_.bench.must(commit_in_use({.top = c.root_, .base = c.mid_}, *c.top_));
    CHECK(c.content() == wanted);
    CHECK(c.content(*c.mid_) == wanted);
  }
}

TEST_CASE("commit in use: whatever fails, the disk reads as before and no bitmap is left") {
  u64 nth = 1;
  for (bool has_failed = true; has_failed; nth++) {
    CAPTURE(nth);
    chain_bench c(200 << 10, 256 << 10, 256 << 10, false);
    c.scribble(5);
    const std::vector<std::byte> before = c.content();
    u64 seen = 0;
    const auto fault = [&](std::string_view, byte_range) -> std::optional<error> {
      if (++seen != nth)
        return std::nullopt;
      return error::from_errno(EIO, "the test says so");
    };
    for (const char* disk : {"mid", "top"})
      memory_disks()[disk]->fault = fault;
    const result<> done = c.b_.bench.run(commit_in_use({.top = c.root_, .base = c.mid_}, *c.top_));
    has_failed = seen >= nth;
    for (const char* disk : {"mid", "top"})
      memory_disks()[disk]->fault = nullptr;
    CHECK(c.content() == before);
    CHECK(c.top_->bitmaps().is_empty());
  }
  CHECK(nth > 20);
}
