// SPDX-License-Identifier: MIT
#include "fuse/transport/notifier.h"

#include "fuse/protocol/kernel.h"

#include <algorithm>
#include <array>
#include <sys/uio.h>

namespace bgfs {

void notifier::invalidate(u64 inode, byte_range range) {
  const std::lock_guard lock(mutex_);
  if (stop_)
    return;
  if (queue_.size() >= queued_max) {
    // Keeps one message for each inode, about all of it.
    std::ranges::sort(queue_, {}, &message::inode);
    const auto [first, last] = std::ranges::unique(queue_, {}, &message::inode);
    queue_.erase(first, last);
    for (message& m : queue_)
      m.range = {0, 0};
  }
  queue_.push_back({inode, range});
  if (!thread_.joinable())
    thread_ = std::thread([this] { work(); });
  wake_.notify_one();
}

void notifier::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
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
  fuse_notify_inval_inode_out out{};
  out.ino = m.inode;
  out.off = static_cast<i64>(m.range.offset);
  out.len = static_cast<i64>(m.range.length); // 0: to the end
  fuse_out_header header{};
  header.len = sizeof header + sizeof out;
  header.error = FUSE_NOTIFY_INVAL_INODE;
  const std::array<iovec, 2> parts = {iovec{&header, sizeof header}, iovec{&out, sizeof out}};
  // ENOENT: the kernel does not know the inode (any more), so it believes nothing about it.
  (void)!::writev(fd_, parts.data(), parts.size());
}

} // namespace bgfs
