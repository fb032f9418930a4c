// SPDX-License-Identifier: MIT
// Tasks that run beside a test.
#pragma once

#include "graph/io/sleep.h"
#include "tests/unit/lib/graph_bench.h"

namespace bgfs::test {

// Starts tasks without waiting for them.
class background {
public:
  explicit background(graph_bench& bench) : bench_(bench), group_(bench.home()) {}
  ~background() { (void)finish(); }
  void start(task<void> t) {
    spawn(std::move(t));
    settle();
  }
  // Without letting it run yet.
  void spawn(task<void> t) { group_.spawn(std::move(t)); }
  // Lets everything run that can.
  void settle() { bench_.must(pause()); }
  result<> finish() { return bench_.run(group_.join()); }
  [[nodiscard]] unsigned running() const { return group_.running(); }

private:
  static task<void> pause() {
    for (int i = 0; i < 20; i++)
      co_await sleep_for(std::chrono::nanoseconds(0));
  }
  graph_bench& bench_;
  task_group group_;
};

} // namespace bgfs::test
