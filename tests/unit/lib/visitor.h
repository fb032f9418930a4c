// SPDX-License-Identifier: MIT
// For tests of leases: visits as a queue would make them, and tasks that run beside the test.
#pragma once

#include "graph/model/lease.h"
#include "tests/unit/lib/background.h"

namespace bgfs::test {

// Enters when it is made, if the lease is open, and leaves when it goes.
class visitor {
public:
  explicit visitor(lease& by, unsigned queue = 1)
      : by_(by), queue_(queue), is_inside_(by.enter(queue, epoch_)) {}
  ~visitor() { leave(); }
  visitor(const visitor&) = delete;
  visitor& operator=(const visitor&) = delete;

  [[nodiscard]] bool is_inside() const { return is_inside_; }
  [[nodiscard]] std::optional<resolved_extent> find(u64 offset) const { return by_.find(offset); }
  // As if it had written there.
  void count_write(byte_range guest, const resolved_extent& e) {
    const leased_request done{.is_write = true,
                              .bytes = guest.length,
                              .end = guest.end(),
                              .ended = std::chrono::steady_clock::now()};
    by_.count(queue_, done);
    by_.count_piece(queue_, e.path, done);
  }
  void leave() {
    if (std::exchange(is_inside_, false))
      by_.leave(queue_, epoch_);
  }

private:
  lease& by_;
  unsigned queue_;
  unsigned epoch_ = 0;
  bool is_inside_;
};

// One task that was started and not awaited.
class beside {
public:
  beside(graph_bench& bench, task<void> t) : tasks_(bench) { tasks_.start(std::move(t)); }
  void settle() { tasks_.settle(); }
  [[nodiscard]] bool has_ended() {
    settle();
    return tasks_.running() == 0;
  }

private:
  background tasks_;
};

} // namespace bgfs::test
