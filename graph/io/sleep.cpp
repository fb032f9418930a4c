// SPDX-License-Identifier: MIT
#include "graph/io/sleep.h"

#include "graph/io/spawn.h"

namespace bgfs {
namespace {

struct alarm : timer {
  loop& home;
  wait_queue sleepers;

  alarm(loop& l, std::chrono::nanoseconds duration) : home(l) {
    due = std::chrono::steady_clock::now() + duration;
    run = [](run_item& self) { static_cast<alarm&>(self).sleepers.wake_all(); };
    home.arm(*this);
  }
  ~alarm() { home.disarm(*this); }
};

} // namespace

task<void> sleep_for(std::chrono::nanoseconds duration) {
  const task_context here = co_await current_context();
  alarm ring(*here.home, duration);
  co_await ring.sleepers.wait();
}

task<void> time_slice::next() {
  co_await sleep_for(std::chrono::nanoseconds(0));
  end_ = std::chrono::steady_clock::now() + length;
}

} // namespace bgfs
