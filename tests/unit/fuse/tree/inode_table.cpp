// SPDX-License-Identifier: MIT
#include "fuse/tree/inode_table.h"

#include <doctest/doctest.h>

using namespace bgfs;

namespace {

std::unique_ptr<inode> some_link(std::string target = "x") {
  return std::make_unique<bgfs::link>(std::move(target), 0, 0, std::timespec{});
}

u64 always_the_same(std::string_view) {
  return 1000;
}

} // namespace

TEST_CASE("a path has one number, whatever else is known") {
  inode_table first(some_link());
  inode_table second(some_link());
  (void)second.intern("/other", some_link());
  const inode_pin a = first.intern("/web", some_link());
  const inode_pin b = second.intern("/web", some_link());
  CHECK(a->number() == b->number());
  CHECK(a->number() == first.number_of("/web"));
  // Numbers are kept across versions of this program.
  CHECK(inode_table::hash_of_path("/web") == inode_table::hash_of_path("/web"));
  CHECK(inode_table::hash_of_path("/web") != inode_table::hash_of_path("/web.d"));
}

TEST_CASE("paths with one hash get different numbers") {
  inode_table table(some_link(), always_the_same);
  const inode_pin a = table.intern("/a", some_link());
  const inode_pin b = table.intern("/b", some_link());
  CHECK(a->number() != b->number());
  CHECK(table.number_of("/a") == a->number());
  CHECK(table.number_of("/b") == b->number());
  CHECK(table.find(a->number()).get() == a.get());
}

TEST_CASE("the root is number 1 and is never forgotten") {
  inode_table table(some_link());
  table.forget(FUSE_ROOT_ID, ~u64{0});
  CHECK(table.find(FUSE_ROOT_ID));
  CHECK(table.number_of("") == FUSE_ROOT_ID);
}

TEST_CASE("an inode goes when every lookup is forgotten and nobody uses it") {
  inode_table table(some_link());
  u64 number = 0;
  {
    const inode_pin pin = table.intern("/a", some_link());
    number = pin->number();
    table.count_lookup(*pin);
    table.count_lookup(*pin);
    table.forget(number, 1);
    CHECK(table.find(number));
    table.forget(number, 5); // more than were given: no wrap
    CHECK(table.find(number));
  }
  CHECK_FALSE(table.find(number));
  table.forget(number, 1); // of what is not known
  CHECK(table.size() == 1);
}

TEST_CASE("an inode that no lookup was answered with goes with its pin") {
  inode_table table(some_link());
  {
    const inode_pin pin = table.intern("/a", some_link());
  }
  CHECK(table.size() == 1);
}

TEST_CASE("interning a known path keeps the inode that is known") {
  inode_table table(some_link());
  const inode_pin a = table.intern("/a", some_link("first"));
  const inode_pin again = table.intern("/a", some_link("second"));
  CHECK(a.get() == again.get());
  CHECK(again->as_link()->target() == "first");
}

namespace {

// What stands for a thing that may be replaced by another of its name.
class numbered final : public inode {
public:
  explicit numbered(std::string identity) : identity_(std::move(identity)) {}
  task<attributes> describe() override { co_return attributes{}; }
  std::string identity() const override { return identity_; }

private:
  std::string identity_;
};

} // namespace

TEST_CASE("another thing under a known path gets another number, and what was known stays") {
  inode_table table(some_link());
  const inode_pin before = table.intern("/a", std::make_unique<numbered>("1"));
  table.count_lookup(*before);
  const inode_pin same = table.intern("/a", std::make_unique<numbered>("1"));
  CHECK(same.get() == before.get());
  const inode_pin after = table.intern("/a", std::make_unique<numbered>("2"));
  CHECK(after.get() != before.get());
  CHECK(after->number() != before->number());
  CHECK(table.find(before->number())->identity() == "1");
  CHECK(table.number_of("/a") == after->number());
  const inode_pin again = table.intern("/a", std::make_unique<numbered>("2"));
  CHECK(again.get() == after.get());
}
