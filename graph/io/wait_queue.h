// SPDX-License-Identifier: MIT
// The one way a task waits for another: a queue of suspended tasks, first in first out. Waking
// posts to the waiter's loop; nothing is resumed inline. A wait ends with error_kind::cancelled
// when its task is cancelled. event, async_mutex, gate and the others are built on it.
#pragma once

#include "graph/io/cancel.h"
#include "graph/io/loop.h"
#include "graph/io/task.h"

namespace bgfs {

class wait_queue;

namespace detail {

class wait_await : public run_item {
public:
  explicit wait_await(wait_queue& queue) : queue_(&queue) { run = &wait_await::go_on; }
  ~wait_await() { BGFS_ASSERT(!is_queued_, "a frame was destroyed while it waited"); }
  wait_await(const wait_await&) = delete;
  wait_await& operator=(const wait_await&) = delete;

  bool await_ready() const noexcept { return false; }
  template<class P>
  void await_suspend(std::coroutine_handle<P> from) {
    promise_ = &from.promise();
    waiting_ = from;
    join();
  }
  void await_resume() const noexcept {}

private:
  friend class bgfs::wait_queue;
  static void go_on(run_item& self);
  void join();
  void leave();

  wait_queue* queue_;
  promise_base* promise_ = nullptr;
  std::coroutine_handle<> waiting_;
  wait_await* before_ = nullptr;
  wait_await* after_ = nullptr;
  bool is_queued_ = false;
  bool is_cancelled_ = false;
  cancel_hook hook_;
};

} // namespace detail

class wait_queue {
public:
  wait_queue() = default;
  ~wait_queue() { BGFS_ASSERT(first_ == nullptr, "destroyed with tasks waiting"); }
  wait_queue(const wait_queue&) = delete;
  wait_queue& operator=(const wait_queue&) = delete;

  // What the waiter was waiting for may be untrue again when it runs: re-check, or hand over.
  [[nodiscard]] detail::wait_await wait() { return detail::wait_await(*this); }
  // True if somebody was woken.
  bool wake_one();
  void wake_all();
  [[nodiscard]] bool is_empty() const { return first_ == nullptr; }

private:
  friend class detail::wait_await;
  detail::wait_await* first_ = nullptr;
  detail::wait_await* last_ = nullptr;
};

} // namespace bgfs
