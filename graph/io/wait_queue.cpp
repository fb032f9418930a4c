// SPDX-License-Identifier: MIT
#include "graph/io/wait_queue.h"

namespace bgfs {
namespace detail {

void wait_await::join() {
  before_ = queue_->last_;
  (before_ != nullptr ? before_->after_ : queue_->first_) = this;
  queue_->last_ = this;
  is_queued_ = true;
  hook_.attach(promise_->context.cancel, [this] {
    is_cancelled_ = true;
    leave();
    promise_->context.home->post(*this);
  });
}

void wait_await::leave() {
  (before_ != nullptr ? before_->after_ : queue_->first_) = after_;
  (after_ != nullptr ? after_->before_ : queue_->last_) = before_;
  before_ = after_ = nullptr;
  is_queued_ = false;
}

void wait_await::go_on(run_item& self) {
  auto& me = static_cast<wait_await&>(self);
  if (!me.is_cancelled_) {
    me.waiting_.resume();
    return;
  }
  propagate(*me.promise_, error(error_kind::cancelled, "the request was interrupted")).resume();
}

} // namespace detail

bool wait_queue::wake_one() {
  detail::wait_await* woken = first_;
  if (woken == nullptr)
    return false;
  woken->leave();
  woken->hook_.detach();
  woken->promise_->context.home->post(*woken);
  return true;
}

void wait_queue::wake_all() {
  while (wake_one()) {
  }
}

} // namespace bgfs
