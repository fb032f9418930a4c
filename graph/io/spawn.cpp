// SPDX-License-Identifier: MIT
#include "graph/io/spawn.h"

namespace bgfs {
namespace {

// The outermost coroutine of a chain: owns itself, starts on a turn of its loop, ends by telling.
struct root {
  struct promise_type : promise_base, run_item {
    promise_type() {
      run = [](run_item& me) { static_cast<promise_type&>(me).self.resume(); };
    }
    root get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_always initial_suspend() const noexcept { return {}; }
    std::suspend_never final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    void unhandled_exception() const noexcept { std::terminate(); }
  };
  std::coroutine_handle<promise_type> handle;
};

root run_root(task<void> t, std::function<void(result<>)> done) {
  result<> outcome;
  {
    task<void> body = std::move(t);
    outcome = co_await as_result(std::move(body));
  }
  done(std::move(outcome));
}

root::promise_type& make_root(loop& home, task<void> t, cancel_state* cancel,
                              std::function<void(result<>)> done) {
  const root r = run_root(std::move(t), std::move(done));
  auto& promise = r.handle.promise();
  promise.self = r.handle;
  promise.context = {&home, cancel};
  return promise;
}

} // namespace

void spawn(loop& home, task<void> t, cancel_state* cancel, std::function<void(result<>)> done) {
  home.post(make_root(home, std::move(t), cancel, std::move(done)));
}

void spawn_remote(loop& home, task<void> t, cancel_state* cancel,
                  std::function<void(result<>)> done) {
  home.post_remote(make_root(home, std::move(t), cancel, std::move(done)));
}

void task_group::spawn(task<void> t) {
  running_++;
  bgfs::spawn(home_, std::move(t), &cancel_, [this](result<> r) { finished(std::move(r)); });
}

void task_group::finished(result<> outcome) {
  if (!outcome && !first_error_)
    first_error_ = std::move(outcome).error();
  if (--running_ == 0)
    idle_.wake_all();
}

task<void> stop_if_cancelled(std::string_view what) {
  const task_context here = co_await current_context();
  if (here.cancel != nullptr && here.cancel->is_requested())
    co_await fail(error_kind::cancelled, "{} was interrupted", what);
}

namespace {
task<void> wait_idle(const unsigned& running, wait_queue& idle) {
  while (running > 0)
    co_await idle.wait();
}
} // namespace

task<void> task_group::join() {
  co_await shielded(wait_idle(running_, idle_));
  if (first_error_)
    co_await fail(*std::exchange(first_error_, std::nullopt));
}

namespace {

struct all_state {
  cancel_state stop;
  unsigned running = 0;
  wait_queue idle;
  std::optional<error> first;
};

void finish_one(all_state& state, result<> outcome) {
  if (!outcome && !state.first) {
    state.first = std::move(outcome).error();
    state.stop.request();
  }
  if (--state.running == 0)
    state.idle.wake_all();
}

} // namespace

task<void> when_all(std::vector<task<void>> tasks) {
  const task_context here = co_await current_context();
  all_state state;
  cancel_hook outer; // a cancellation from above reaches the children
  outer.attach(here.cancel, [&state] { state.stop.request(); });
  state.running = static_cast<unsigned>(tasks.size());
  for (task<void>& t : tasks)
    spawn(*here.home, std::move(t), &state.stop,
          [&state](result<> r) { finish_one(state, std::move(r)); });
  co_await shielded(wait_idle(state.running, state.idle));
  outer.detach();
  if (state.first)
    co_await fail(*std::move(state.first));
}

} // namespace bgfs
