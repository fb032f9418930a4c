// SPDX-License-Identifier: MIT
// What the files may hold when the power goes, for every instant of a history: all that was flushed
// in each file, and of what was not, any part. Short runs of what was not flushed are taken apart
// into all their subsets, longer ones at random; besides, writes are torn into their sectors.
#pragma once

#include "tests/crash/workload.h"

namespace bgfs::test {

struct cut_bounds {
  unsigned subset_bits = 8;     // so many unflushed events give all 2^n subsets
  unsigned random_subsets = 12; // else so many of them
};

using file_contents = std::vector<std::vector<std::byte>>; // as crash_history::files

// Calls visit(cut, files), where `cut` counts the events that had happened, until it returns false.
void for_each_power_cut(const crash_history& h, const cut_bounds& bounds, u64 seed,
                        const std::function<bool(u64 cut, const file_contents& files)>& visit);

} // namespace bgfs::test
