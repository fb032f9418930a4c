// SPDX-License-Identifier: MIT
// For kernels and containers without io_uring: system calls on the offload threads, readiness from
// epoll.
#include "graph/io/file.h"
#include "graph/io/io_backend.h"
#include "graph/io/offload.h"

#include <map>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <fcntl.h>

namespace bgfs {
namespace {

i64 call(const io_operation& op) {
  const auto offset = static_cast<off_t>(op.range.offset);
  const auto count = static_cast<int>(op.vector_count);
  i64 status = -1;
  do {
    switch (op.code) {
    case io_code::read:
      status = preadv2(op.fd, op.vectors, count, offset, op.flags);
      break;
    case io_code::write:
      status = pwritev2(op.fd, op.vectors, count, offset, op.flags);
      break;
    case io_code::sync:
      status = fsync(op.fd);
      break;
    case io_code::sync_data:
      status = fdatasync(op.fd);
      break;
    case io_code::allocate:
      status = fallocate(op.fd, op.flags, offset, static_cast<off_t>(op.range.length));
      break;
    case io_code::command:
      return -EOPNOTSUPP; // loop::takes_commands says so before
    case io_code::poll:
      errno = EINVAL;
      break;
    }
  } while (status < 0 && errno == EINTR);
  return status < 0 ? -errno : status;
}

class threads_backend final : public io_backend {
public:
  threads_backend(int wake_fd, loop& home, descriptor epoll)
      : wake_fd_(wake_fd), home_(home), epoll_(std::move(epoll)) {}

  void submit(io_operation& op) override {
    if (op.code == io_code::poll) {
      add_poll(op);
      return;
    }
    op.home = &home_;
    op.complete = op.run;
    op.run = [](run_item& self) {
      auto& me = static_cast<io_operation&>(self);
      me.result = call(me);
      me.run = me.complete;
      me.home->post_remote(me);
    };
    home_.offloads().submit(op);
  }

  void cancel(io_operation& op) override {
    const auto at = polls_.find(op.fd);
    if (op.code != io_code::poll || at == polls_.end())
      return; // calls run to their end
    if (std::erase(at->second, &op) == 0)
      return;
    op.result = -ECANCELED;
    cancelled_.push_back(&op);
    watch(op.fd);
  }

  void turn(bool may_wait, std::optional<steady_time> until,
            std::vector<run_item*>& completed) override {
    completed.insert(completed.end(), cancelled_.begin(), cancelled_.end());
    cancelled_.clear();
    std::array<epoll_event, 64> events;
    const int limit = may_wait && completed.empty() ? milliseconds_until(until) : 0;
    const int count = epoll_wait(epoll_.get(), events.data(), events.size(), limit);
    for (int i = 0; i < count; i++) {
      if (events[i].data.fd == wake_fd_) {
        u64 wakes = 0;
        (void)!read(wake_fd_, &wakes, sizeof wakes);
      } else {
        take_ready(events[i].data.fd, events[i].events, completed);
      }
    }
  }

  [[nodiscard]] std::string_view name() const override { return "threads"; }

private:
  static int milliseconds_until(std::optional<steady_time> until) {
    if (!until)
      return -1;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(*until - std::chrono::steady_clock::now());
    return static_cast<int>(std::clamp<i64>(left.count(), 0, 60'000));
  }

  void add_poll(io_operation& op) {
    polls_[op.fd].push_back(&op);
    watch(op.fd);
  }

  // Makes epoll watch a descriptor for what its operations wait for, once.
  void watch(int fd) {
    const auto at = polls_.find(fd);
    epoll_event wanted{};
    wanted.data.fd = fd;
    wanted.events = EPOLLONESHOT;
    if (at == polls_.end() || at->second.empty()) {
      epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, &wanted);
      if (at != polls_.end())
        polls_.erase(at);
      return;
    }
    for (const io_operation* op : at->second)
      wanted.events |= static_cast<u32>(op->flags);
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &wanted) == 0)
      return;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &wanted) == 0)
      return;
    for (io_operation* op : at->second) {
      op->result = -errno;
      cancelled_.push_back(op);
    }
    polls_.erase(at);
  }

  void take_ready(int fd, u32 events, std::vector<run_item*>& completed) {
    const auto at = polls_.find(fd);
    if (at == polls_.end())
      return;
    std::erase_if(at->second, [&](io_operation* op) {
      const u32 wanted = static_cast<u32>(op->flags) | EPOLLERR | EPOLLHUP;
      if ((events & wanted) == 0)
        return false;
      op->result = events;
      completed.push_back(op);
      return true;
    });
    watch(fd);
  }

  int wake_fd_;
  loop& home_;
  descriptor epoll_;
  std::map<int, std::vector<io_operation*>> polls_;
  std::vector<io_operation*> cancelled_;
};

} // namespace

result<std::unique_ptr<io_backend>> make_threads_backend(int wake_fd, loop& home) {
  descriptor epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.is_open())
    return fail_errno(errno, "cannot make an epoll descriptor");
  epoll_event wake{};
  wake.events = EPOLLIN;
  wake.data.fd = wake_fd;
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake_fd, &wake) != 0)
    return fail_errno(errno, "cannot watch the loop's wake-up descriptor");
  return std::make_unique<threads_backend>(wake_fd, home, std::move(epoll));
}

} // namespace bgfs
