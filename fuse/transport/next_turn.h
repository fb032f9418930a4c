// SPDX-License-Identifier: MIT
// Giving way: the next turn of the loop.
#pragma once

#include "graph/io/loop.h"
#include "graph/io/task.h"

namespace bgfs {

namespace detail {

struct turn_await : run_item {
  std::coroutine_handle<> waiting;
  turn_await() {
    run = [](run_item& self) { static_cast<turn_await&>(self).waiting.resume(); };
  }
  bool await_ready() const noexcept { return false; }
  template<class P>
  void await_suspend(std::coroutine_handle<P> from) {
    waiting = from;
    from.promise().context.home->post(*this);
  }
  void await_resume() const noexcept {}
};

} // namespace detail

[[nodiscard]] inline detail::turn_await next_turn() {
  return {};
}

} // namespace bgfs
