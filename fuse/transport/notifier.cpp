// SPDX-License-Identifier: MIT
#include "fuse/transport/notifier.h"

#include "fuse/protocol/kernel.h"

#include <algorithm>
#include <array>
#include <sys/uio.h>

namespace bgfs {

void notifier::invalidate(u64 inode, byte_range range) {
  queue({.what = kind::inode, .number = inode, .range = range});
}

void notifier::forget_attributes(u64 inode) {
  queue({.what = kind::attributes, .number = inode});
}

void notifier::forget_name(u64 directory, std::string name) {
  queue({.what = kind::name, .number = directory, .name = std::move(name)});
}

void notifier::wake_poll(u64 kernel_handle) {
  queue({.what = kind::wake, .number = kernel_handle});
}

// Keeps one message for each inode, about all of it, one for each name and for each open file. Each
// may speak for the oldest of those that are gone: who waits for that one waits for all of them.
void notifier::merge() {
  const u64 oldest = queue_.front().ticket;
  std::ranges::sort(queue_, {}, &message::subject);
  const auto [first, last] = std::ranges::unique(queue_, {}, &message::subject);
  queue_.erase(first, last);
  for (message& kept : queue_) {
    kept.range = {0, 0};
    kept.ticket = oldest;
  }
}

void notifier::queue(message m) {
  const std::lock_guard lock(mutex_);
  if (stop_)
    return;
  if (queue_.size() >= queued_max && queue_.size() % queued_max == 0)
    merge();
  m.ticket = ++last_ticket_;
  queue_.push_back(std::move(m));
  if (!thread_.joinable())
    thread_ = std::thread([this] { work(); });
  wake_.notify_one();
}

bool notifier::announce(settling& who) {
  const std::lock_guard lock(mutex_);
  if (stop_ || is_sent(last_ticket_))
    return false;
  queue_.push_back({.what = kind::told, .told = &who, .ticket = ++last_ticket_});
  wake_.notify_one();
  return true;
}

bool notifier::is_sent(u64 ticket) const {
  const bool is_queued = !queue_.empty() && queue_.front().ticket <= ticket;
  const bool is_being_sent = sending_ != 0 && sending_ <= ticket;
  return !is_queued && !is_being_sent;
}

bool notifier::has_queued() const {
  const std::lock_guard lock(mutex_);
  return !stop_ && !is_sent(last_ticket_);
}

bool notifier::wait_until_sent() {
  std::unique_lock lock(mutex_);
  const u64 mine = last_ticket_;
  return sent_.wait_for(lock, kept_for, [&] { return stop_ || is_sent(mine); });
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
  sent_.notify_all();
  if (thread_.joinable())
    thread_.join();
}

void notifier::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (stop_)
      return;
    const message m = std::move(queue_.front());
    queue_.pop_front();
    sending_ = m.ticket;
    lock.unlock();
    send(m);
    lock.lock();
    sending_ = 0;
    sent_.notify_all();
  }
}

namespace {

template<class T>
void notify(int fd, i32 code, const T& body, const char* name = nullptr, std::size_t length = 0) {
  fuse_out_header header{};
  header.len = static_cast<u32>(sizeof header + sizeof body + length);
  header.error = code;
  // An iovec cannot say that it is only read.
  const std::array<iovec, 3> parts = {iovec{&header, sizeof header},
                                      iovec{const_cast<T*>(&body), sizeof body},
                                      iovec{const_cast<char*>(name), length}};
  // ENOENT: the kernel does not know it (any more), so it believes nothing about it.
  (void)!::writev(fd, parts.data(), parts.size());
}

} // namespace

void notifier::send(const message& m) const {
  switch (m.what) {
  case kind::inode:
  case kind::attributes:
    return send_invalidation(m);
  case kind::name:
    return send_forget_name(m);
  case kind::told:
    return m.told->home->post_remote(*m.told);
  case kind::wake:
    return notify(fd_, FUSE_NOTIFY_POLL, fuse_notify_poll_wakeup_out{m.number});
  }
}

void notifier::send_invalidation(const message& m) const {
  fuse_notify_inval_inode_out out{};
  out.ino = m.number;
  // A negative offset means the attributes alone.
  out.off = m.what == kind::attributes ? -1 : static_cast<i64>(m.range.offset);
  out.len = static_cast<i64>(m.range.length); // 0: to the end
  notify(fd_, FUSE_NOTIFY_INVAL_INODE, out);
}

void notifier::send_forget_name(const message& m) const {
  fuse_notify_inval_entry_out out{};
  out.parent = m.number;
  out.namelen = static_cast<u32>(m.name.size());
  notify(fd_, FUSE_NOTIFY_INVAL_ENTRY, out, m.name.c_str(), m.name.size() + 1);
}

} // namespace bgfs
