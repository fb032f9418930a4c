// SPDX-License-Identifier: MIT
// Comparing two disks: only data is read, and of two disks that show the same bytes of one file
// nothing is. Several pieces are under way at once; what is found first is still what is first.
#pragma once

#include "graph/model/graph.h"

#include <functional>

namespace bgfs {

struct compare_plan {
  root* disks[2] = {};
  // Also how the bytes are stored has to be alike - as data, zeroes or not at all - in as long
  // runs.
  bool is_strict = false;
  unsigned parallel = 8;
  // Called now and then with bytes done and bytes in all. May not suspend.
  std::function<void(u64 done, u64 total)> progress;
};

enum class compare_finding : u8 {
  same,
  content_differs,
  status_differs, // of a strict comparison
  status_unknown, // asking for it failed
  unreadable,
};

struct comparison {
  compare_finding finding = compare_finding::same;
  u64 offset = 0;           // the first byte of the sector where it is so
  std::optional<error> why; // of status_unknown and unreadable
  std::size_t disk = 0;     // which failed
};

// What a sector is to disks that are compared: differences are said to be at the beginning of one,
// and lengths are counted in whole ones.
inline constexpr u64 compare_unit = 512;

// What one disk has beyond the end of the other has to read as zeroes, however it is stored. Fails
// only where it was cancelled.
task<comparison> compare_disks(loop& home, compare_plan plan);

} // namespace bgfs
