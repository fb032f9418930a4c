// SPDX-License-Identifier: MIT
// A task on another loop: `co_await run_on(there, count(nodes))` starts it there and goes on here
// with what it ended with. A cancellation of the caller reaches it. On the caller's own
// loop it is simply awaited.
//
// What it refers to is the other thread's while it runs; what it returns must not belong to the
// other loop (buffers of a pool, guards of its locks).
#pragma once

#include "graph/io/spawn.h"

namespace bgfs {

namespace detail {

// Waits until `t` has ended on `there`. `t` ends with no error.
task<void> cross(loop& there, task<void> t);

} // namespace detail

template<class T>
task<T> run_on(loop& there, task<T> t) {
  if ((co_await current_context()).home == &there)
    co_return co_await std::move(t);
  std::optional<result<T>> outcome;
  co_await detail::cross(there, detail::store_outcome(std::move(t), outcome));
  co_return *std::move(outcome);
}
template<>
inline task<void> run_on(loop& there, task<void> t) {
  if ((co_await current_context()).home == &there) {
    co_await std::move(t);
    co_return;
  }
  std::optional<result<>> outcome;
  co_await detail::cross(there, detail::store_outcome(std::move(t), outcome));
  co_await *std::move(outcome);
}

} // namespace bgfs
