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

namespace {
// Goes with the frame that waits, however its wait ends.
struct counted {
  unsigned& count;
  wait_queue& changed;
  counted(unsigned& c, wait_queue& q) : count(c), changed(q) { count++; }
  ~counted() {
    count--;
    changed.wake_all();
  }
  counted(const counted&) = delete;
  counted& operator=(const counted&) = delete;
};
} // namespace

task<async_shared_mutex::guard> async_shared_mutex::lock() {
  const counted waiting(writers_waiting_, changed_);
  while (is_written_ || readers_ > 0)
    co_await changed_.wait();
  is_written_ = true;
  co_return guard(*this, false);
}

task<async_shared_mutex::guard> async_shared_mutex::lock_shared() {
  while (is_written_ || writers_waiting_ > 0)
    co_await changed_.wait();
  readers_++;
  co_return guard(*this, true);
}

void async_shared_mutex::unlock(bool is_shared) {
  if (is_shared) {
    readers_--;
  } else {
    is_written_ = false;
  }
  changed_.wake_all();
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
