// SPDX-License-Identifier: MIT
#include "graph/io/run_on.h"

namespace bgfs {
namespace detail {
namespace {

// Two messages may be under way: that the task has ended, and that it should stop. The caller goes
// on when every one it waits for has come back.
class crossing {
public:
  crossing(loop& here, loop& there, cancel_state* asked, task<void> t)
      : here_(here), there_(there), asked_(asked), task_(std::move(t)) {}
  crossing(const crossing&) = delete;
  crossing& operator=(const crossing&) = delete;

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> from) {
    waiting_ = from;
    spawn_remote(there_, std::move(task_), &stop_, [this](result<> outcome) {
      BGFS_ASSERT(outcome.has_value(), "what crosses keeps its outcome to itself");
      has_ended_ = true;
      here_.post_remote(ended_);
    });
    hook_.attach(asked_, [this] {
      outstanding_++;
      there_.post_remote(stopping_);
    });
  }
  void await_resume() const noexcept {}

private:
  struct message : run_item {
    crossing& of;
    message(crossing& c, void (*f)(run_item&)) : run_item(f), of(c) {}
  };

  static void came_back(run_item& self) {
    crossing& me = static_cast<message&>(self).of;
    if (--me.outstanding_ > 0)
      return;
    me.hook_.detach();
    me.waiting_.resume();
  }
  static void stop(run_item& self) { // there
    crossing& me = static_cast<message&>(self).of;
    if (!me.has_ended_)
      me.stop_.request();
    self.run = came_back;
    me.here_.post_remote(self);
  }

  loop& here_;
  loop& there_;
  cancel_state* asked_;
  task<void> task_;
  std::coroutine_handle<> waiting_;
  cancel_hook hook_;
  unsigned outstanding_ = 1;
  message ended_{*this, came_back};
  message stopping_{*this, stop};
  // Of the other thread while the task runs.
  cancel_state stop_;
  bool has_ended_ = false;
};

} // namespace

task<void> cross(loop& there, task<void> t) {
  const task_context here = co_await current_context();
  co_await crossing(*here.home, there, here.cancel, std::move(t));
}

} // namespace detail
} // namespace bgfs
