// SPDX-License-Identifier: MIT
#include "fuse/transport/notifier.h"

#include "fuse/protocol/kernel.h"

#include <algorithm>
#include <array>
#include <sys/uio.h>

namespace bgfs {

void notifier::invalidate(u64 inode, byte_range range) {
  queue({.number = inode, .range = range});
}

void notifier::wake_poll(u64 kernel_handle) {
  queue({.is_wake = true, .number = kernel_handle});
}

void notifier::queue(message m) {
  const std::lock_guard lock(mutex_);
  if (stop_)
    return;
  if (queue_.size() >= queued_max) {
    // Keeps one message for each inode, about all of it, and one for each open file; then come
    // those who wait for all of them.
    std::ranges::sort(queue_, {}, &message::subject);
    const auto [first, last] = std::ranges::unique(queue_, {}, &message::subject);
    queue_.erase(first, last);
    for (message& kept : queue_)
      kept.range = {0, 0};
  }
  queue_.push_back(m);
  if (!thread_.joinable())
    thread_ = std::thread([this] { work(); });
  wake_.notify_one();
}

bool notifier::announce(settling& who) {
  const std::lock_guard lock(mutex_);
  if (stop_ || !thread_.joinable())
    return false; // nothing was sent yet, or nobody is there any more
  queue_.push_back({.told = &who});
  wake_.notify_one();
  return true;
}

void notifier::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    for (const message& m : queue_)
      if (m.told != nullptr)
        m.told->home->post_remote(*m.told);
    queue_.clear();
  }
  wake_.notify_one();
  if (thread_.joinable())
    thread_.join();
}

void notifier::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_)
      return;
    const message m = queue_.front();
    queue_.pop_front();
    lock.unlock();
    send(m);
    lock.lock();
  }
}

void notifier::send(const message& m) const {
  if (m.told != nullptr) {
    m.told->home->post_remote(*m.told);
  } else if (m.is_wake) {
    send_wake(m.number);
  } else {
    send_invalidation(m);
  }
}

namespace {

template<class T>
void notify(int fd, i32 code, const T& body) {
  fuse_out_header header{};
  header.len = sizeof header + sizeof body;
  header.error = code;
  // An iovec cannot say that it is only read.
  const std::array<iovec, 2> parts = {iovec{&header, sizeof header},
                                      iovec{const_cast<T*>(&body), sizeof body}};
  // ENOENT: the kernel does not know it (any more), so it believes nothing about it.
  (void)!::writev(fd, parts.data(), parts.size());
}

} // namespace

void notifier::send_invalidation(const message& m) const {
  fuse_notify_inval_inode_out out{};
  out.ino = m.number;
  out.off = static_cast<i64>(m.range.offset);
  out.len = static_cast<i64>(m.range.length); // 0: to the end
  notify(fd_, FUSE_NOTIFY_INVAL_INODE, out);
}

void notifier::send_wake(u64 kernel_handle) const {
  notify(fd_, FUSE_NOTIFY_POLL, fuse_notify_poll_wakeup_out{kernel_handle});
}

} // namespace bgfs
