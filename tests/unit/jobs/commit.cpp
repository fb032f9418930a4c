// SPDX-License-Identifier: MIT
#include "graph/jobs/commit.h"

#include "tests/unit/jobs/chain_bench.h"

using namespace bgfs;
using namespace bgfs::test;

namespace {

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
