// SPDX-License-Identifier: MIT
// Where chains of awaits begin: a task group (every member is awaited by join), and run_to_end for
// code that is not a coroutine.
#pragma once

#include "graph/io/wait_queue.h"

#include <functional>

namespace bgfs {

// Starts `t` on `home` at its next turn and calls `done` on that loop with the outcome. `t` must
// not refer to anything that may go before `done` was called.
void spawn(loop& home, task<void> t, cancel_state* cancel, std::function<void(result<>)> done);
// The same from any thread. `cancel` belongs to `home`, whose thread also destroys `t`.
void spawn_remote(loop& home, task<void> t, cancel_state* cancel,
                  std::function<void(result<>)> done);

// Tasks that belong together and are awaited together. Used on one loop only.
class task_group {
public:
  explicit task_group(loop& home) : home_(home) {}
  ~task_group() { BGFS_ASSERT(running_ == 0, "a task group was not joined"); }
  task_group(const task_group&) = delete;
  task_group& operator=(const task_group&) = delete;

  void spawn(task<void> t);
  // Waits until no member runs, whatever they ended with; not interrupted by a cancellation of the
  // waiter. Then fails with the first error, if any.
  task<void> join();
  // Cancels the waits of all members, present and future.
  void request_stop() { cancel_.request(); }
  [[nodiscard]] unsigned running() const { return running_; }
  [[nodiscard]] bool has_failed() const { return first_error_.has_value(); }

private:
  void finished(result<> outcome);
  loop& home_;
  cancel_state cancel_;
  wait_queue idle_;
  unsigned running_ = 0;
  std::optional<error> first_error_;
};

// Awaits all; the first failure asks the others to stop, and is reported when all have ended.
task<void> when_all(std::vector<task<void>> tasks);

// The loop of the running task: `loop& home = co_await current_loop();`
struct current_context {
  task_context context;
  bool await_ready() const noexcept { return false; }
  template<class P>
  bool await_suspend(std::coroutine_handle<P> from) noexcept {
    context = from.promise().context;
    return false;
  }
  task_context await_resume() const noexcept { return context; }
};

// Ends the calling task with error_kind::cancelled if it was cancelled: for loops that may go on
// for long without waiting for anything that is told of it. `what` was going on.
task<void> stop_if_cancelled(std::string_view what);

// Runs `t` without cancellation: for releases, flushes and rollbacks.
template<class T>
struct shielded_task {
  task<T> inner;
  struct await : detail::task_await<T> {
    explicit await(typename task<T>::handle h) : detail::task_await<T>(h) {}
    template<class P>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<P> from) noexcept {
      auto child = detail::task_await<T>::await_suspend(from);
      this->child.promise().context.cancel = nullptr;
      return child;
    }
  };
  await operator co_await() && noexcept { return await(inner.get()); }
};
template<class T>
[[nodiscard]] shielded_task<T> shielded(task<T> t) {
  return {std::move(t)};
}

namespace detail {
template<class T>
task<void> store_outcome(task<T> t, std::optional<result<T>>& out) {
  out.emplace(co_await as_result(std::move(t)));
}
} // namespace detail

// Runs the loop on this thread until `t` has ended. For main functions, tests and threads' bodies.
template<class T>
result<T> run_to_end(loop& home, task<T> t) {
  std::optional<result<T>> out;
  bool is_done = false;
  spawn(home, detail::store_outcome(std::move(t), out), nullptr, [&](result<>) { is_done = true; });
  while (!is_done)
    home.run_once();
  return *std::move(out);
}

} // namespace bgfs
