// SPDX-License-Identifier: MIT
// Judges what a power cut left, in four ways: a second reading of the specification, the check of
// the driver, the engine that opens it and goes on writing, and qemu-img for some.
#pragma once

#include "tests/crash/peer.h"

#include <unordered_set>

namespace bgfs::test {

struct judge_options {
  u64 peer_every = 50;       // of the states; 0: none
  u64 peer_leaks_every = 10; // of those with leaks, besides; 0: none
  std::filesystem::path peer_place = "/dev/shm";
};

struct judge_counts {
  u64 states = 0; // with those that came up before
  u64 distinct = 0;
  u64 with_leaks = 0;
  u64 dirty = 0;
  u64 by_peer = 0;
  u64 wrong_flags = 0;
};

class judge {
public:
  judge(const crash_history& h, const judge_options& options, u64 seed);

  // Fails the test that runs if the state breaks a promise.
  void examine(u64 cut, const file_contents& files);
  [[nodiscard]] const judge_counts& counts() const { return counts_; }

private:
  struct reading {
    disk_content disk;
    snapshot_list snapshots;
  };
  [[nodiscard]] reading read(const file_contents& files) const;
  void require_promises(u64 cut, const file_contents& files, const reading& found) const;
  void open_with(const std::string& key);
  void place(const file_contents& files);
  void check(bool may_have_wrong_flags);
  void go_on(const file_contents& files, const reading& found, const std::set<std::string>& keys);

  const crash_history& history_;
  judge_options options_;
  peer peer_;
  std::mt19937_64 random_;
  qcow2_bench b_;
  std::vector<memory_disk*> disks_;
  std::unordered_set<u64> known_;
  judge_counts counts_;
};

} // namespace bgfs::test
