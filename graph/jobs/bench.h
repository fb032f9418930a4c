// SPDX-License-Identifier: MIT
// A load of equal requests, several at once, to measure how long they take.
#pragma once

#include "graph/model/graph.h"

namespace bgfs {

struct bench_plan {
  root* disk = nullptr;
  u64 count = 0;      // of requests
  unsigned depth = 1; // so many at once
  u64 length = 0;     // of one
  u64 offset = 0;     // of the first
  u64 step = 0;       // from one to the next, around the end; one that would pass it begins at 0
  bool is_writing = false;
  std::byte pattern{}; // what is written
  write_flags flags = 0;
  u64 flush_interval = 0;      // a flush after so many writes; 0: none
  bool drains_to_flush = true; // nothing else is under way beside a flush
};

// Fails with the first request that fails, when all that were begun have ended. The first one has
// to lie inside the disk.
task<void> run_bench(loop& home, bench_plan plan);

} // namespace bgfs
