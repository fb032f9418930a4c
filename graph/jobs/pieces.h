// SPDX-License-Identifier: MIT
// How jobs go through a disk: several workers take pieces one after the other, in the order of
// their offsets, and are busy with them side by side.
#pragma once

#include "graph/io/spawn.h"

#include <functional>
#include <optional>

namespace bgfs {

// The most pieces that a job works on at once.
inline constexpr unsigned pieces_at_once_max = 16;
// Runs that are not read may be as long as that; the bound keeps progress moving.
inline constexpr u64 run_length_max = GiB;

// Bytes that are done, for whoever shows them.
class job_progress {
public:
  using listener = std::function<void(u64 done, u64 total)>;

  job_progress(u64 total, listener to) : total_(total), to_(std::move(to)) {}
  void report() const {
    if (to_)
      to_(done_, total_);
  }
  void add(u64 length) {
    done_ += length;
    report();
  }

private:
  u64 done_ = 0;
  u64 total_;
  listener to_;
};

namespace detail {
template<class Take, class Work>
task<void> work_on_pieces(Take& take, Work& work, job_progress& progress) {
  auto next = co_await take();
  while (next) {
    co_await work(*next);
    progress.add(next->range.length);
    next = co_await take();
  }
}
} // namespace detail

// `take` gives a task of the next piece, which has a `range`, or nullopt; `work` one that deals
// with it. Both are plain functions, called by all workers. The first error ends all of them.
template<class Take, class Work>
task<void> run_pieces(unsigned parallel, job_progress& progress, Take take, Work work) {
  std::vector<task<void>> workers;
  const unsigned count = std::clamp(parallel, 1U, pieces_at_once_max);
  for (unsigned i = 0; i < count; i++)
    workers.push_back(detail::work_on_pieces(take, work, progress));
  progress.report();
  co_await when_all(std::move(workers));
  progress.report();
}

} // namespace bgfs
