// SPDX-License-Identifier: MIT
#include "fuse/operations/caller.h"

#include "fuse/tree/process.h"

#include <doctest/doctest.h>

#include <unistd.h>

using namespace bgfs;

TEST_CASE("a mode grants to owner, group and others what its own bits say, and no more") {
  struct row {
    mode_t mode;
    bool is_owner;
    bool is_in_group;
    file_right wanted;
    bool is_granted;
  };
  const row rows[] = {
      {0400, true, false, file_right::read, true},
      {0400, false, true, file_right::read, false},
      {0040, false, true, file_right::read, true},
      {0040, true, true, file_right::read, false},
      {0004, false, false, file_right::read, true},
      {0004, false, true, file_right::read, false},
      {0200, true, false, file_right::write, true},
      {0444, true, true, file_right::write, false},
      {0100, true, false, file_right::search, true},
      {0666, true, false, file_right::search, false},
      {0020, false, true, file_right::write, true},
      {0002, false, false, file_right::write, true},
      {0001, false, false, file_right::search, true},
      {0000, true, true, file_right::read, false},
  };
  for (const row& r : rows) {
    CAPTURE(r.mode);
    CAPTURE(r.is_owner);
    CHECK(mode_grants(r.mode, r.is_owner, r.is_in_group, r.wanted) == r.is_granted);
  }
}

TEST_CASE("the superuser of the mount may do all, others what the mode says") {
  attributes file;
  file.mode = S_IFREG | 0640;
  file.owner = 1000;
  file.group = 100;
  fuse_in_header who{};
  CHECK(may(who, file, file_right::write));
  who.uid = 1000;
  CHECK(may(who, file, file_right::write));
  who.uid = 1001;
  who.gid = 100;
  CHECK(may(who, file, file_right::read));
  CHECK_FALSE(may(who, file, file_right::write));
  who.gid = 101;
  CHECK_FALSE(may(who, file, file_right::read)); // of no process that could be looked at
}

TEST_CASE("supplementary groups are read from a process's status") {
  CHECK(groups_in_status("Name:\tx\nGroups:\t4 24 1000 \nNStgid:\t1\n") ==
        std::vector<gid_t>{4, 24, 1000});
  CHECK(groups_in_status("Name:\tx\nGroups:\t \nNStgid:\t1\n").empty());
  CHECK(groups_in_status("Name:\tGroups:\t1\n").empty());
  CHECK(groups_in_status("").empty());
  CHECK(groups_of(0).empty());
}
