// SPDX-License-Identifier: MIT
#include "graph/io/sync.h"

namespace bgfs {

task<void> event::wait() {
  while (!is_set_)
    co_await queue_.wait();
}

task<async_mutex::guard> async_mutex::lock() {
  if (is_locked_) {
    co_await queue_.wait(); // unlock hands the mutex over without freeing it
  } else {
    is_locked_ = true;
  }
  co_return guard(*this);
}

void async_mutex::unlock() {
  BGFS_ASSERT(is_locked_);
  if (!queue_.wake_one())
    is_locked_ = false;
}

task<semaphore::permit> semaphore::acquire() {
  if (free_ == 0) {
    co_await queue_.wait(); // release hands the permit over
  } else {
    free_--;
  }
  co_return permit(*this);
}

void semaphore::release() {
  if (!queue_.wake_one())
    free_++;
}

result<gate::pass> gate::enter(std::string_view what) {
  if (is_closed_)
    return fail(error_kind::busy, "{} is closing", what);
  return pass(*this);
}

void gate::leave() {
  BGFS_ASSERT(inside_ > 0);
  if (--inside_ == 0)
    empty_.wake_all();
}

task<void> gate::close() {
  is_closed_ = true;
  while (inside_ > 0)
    co_await empty_.wait();
}

bool range_lock::is_free(byte_range range) const {
  for (const byte_range& other : held_)
    if (other.overlaps(range))
      return false;
  return true;
}

task<range_lock::guard> range_lock::lock(byte_range range) {
  while (!is_free(range))
    co_await queue_.wait();
  const auto held = held_.insert(held_.end(), range);
  co_return guard(*this, held);
}

void range_lock::unlock(std::list<byte_range>::iterator held) {
  held_.erase(held);
  queue_.wake_all();
}

} // namespace bgfs
