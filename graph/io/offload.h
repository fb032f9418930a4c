// SPDX-License-Identifier: MIT
// Threads for what would hold up a loop: system calls without an asynchronous form, and CPU-heavy
// work. `co_await offload([&] { return lseek(...); })` runs the function on another thread and
// returns its value on the task's own loop. What the function touches must not change meanwhile.
#pragma once

#include "graph/io/loop.h"
#include "graph/io/processors.h"
#include "graph/io/task.h"

#include <condition_variable>
#include <mutex>
#include <thread>

namespace bgfs {

// Started at first use (so that a process may fork before), joined by the destructor.
class offload_pool {
public:
  // Its threads run on these processors; none: wherever the thread that makes it may run now, even
  // if that one is kept on one processor later.
  offload_pool(unsigned thread_count_max, std::vector<unsigned> processors)
      : thread_count_max_(thread_count_max),
        processors_(processors.empty() ? allowed_processors() : std::move(processors)) {}
  ~offload_pool();
  offload_pool(const offload_pool&) = delete;
  offload_pool& operator=(const offload_pool&) = delete;

  // Runs `item` on one of the threads. Any thread may call this.
  void submit(run_item& item);
  [[nodiscard]] const std::vector<unsigned>& processors() const { return processors_; }

private:
  void work();
  const unsigned thread_count_max_;
  const std::vector<unsigned> processors_;
  std::mutex mutex_;
  std::condition_variable wake_;
  run_item* first_ = nullptr;
  run_item* last_ = nullptr;
  unsigned queued_ = 0;
  unsigned idle_ = 0; // some of them may have been woken for what is queued
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

namespace detail {

template<class F>
struct offload_await : run_item {
  using value_type = std::invoke_result_t<F&>;
  F function;
  std::optional<value_type> value;
  loop* home = nullptr;
  std::coroutine_handle<> waiting;

  bool is_brief;

  offload_await(F f, bool brief) : function(std::move(f)), is_brief(brief) {}
  bool await_ready() const noexcept { return false; }
  template<class P>
  bool await_suspend(std::coroutine_handle<P> from) {
    home = from.promise().context.home;
    waiting = from;
    if (is_brief && home->has_one_task()) {
      value.emplace(function());
      return false;
    }
    run = [](run_item& self) {
      auto& me = static_cast<offload_await&>(self);
      me.value.emplace(me.function());
      me.run = [](run_item& back) { static_cast<offload_await&>(back).waiting.resume(); };
      me.home->post_remote(me);
    };
    home->offloads().submit(*this);
    return true;
  }
  value_type await_resume() { return *std::move(value); }
};

} // namespace detail

// `f` takes nothing and returns a value (not void).
template<class F>
[[nodiscard]] detail::offload_await<F> offload(F f) {
  return detail::offload_await<F>(std::move(f), false);
}

// For a call that seldom waits and is over in less time than the way to another thread and back
// takes: on a loop whose work is one task (loop_options::has_one_task) it is made at once.
template<class F>
[[nodiscard]] detail::offload_await<F> offload_brief(F f) {
  return detail::offload_await<F>(std::move(f), true);
}

} // namespace bgfs
