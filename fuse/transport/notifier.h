// SPDX-License-Identifier: MIT
// Tells the kernel what it must no longer believe. Notifications block until dirty pages have been
// written through us, so they are sent by this object's own thread and nobody awaits them.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/io/loop.h"
#include "graph/io/task.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>

namespace bgfs {

class notifier {
public:
  // `fd` is borrowed: the descriptor requests are read from.
  explicit notifier(int fd) : fd_(fd) {}
  ~notifier() { stop(); }
  notifier(const notifier&) = delete;
  notifier& operator=(const notifier&) = delete;

  // Attributes and cached bytes of the range are read anew. Returns at once; any thread.
  void invalidate(u64 inode, byte_range range);
  // Who polls an open file, by the kernel's number of it, looks again. Returns at once; any thread.
  void wake_poll(u64 kernel_handle);
  // Waits until everything that is queued now was sent: whoever looks afterwards sees what is true
  // now. Never in a request on a raw file: what is sent may wait for that.
  [[nodiscard]] auto settled() { return settling{*this}; }
  // What is still queued is dropped: the mount is going away. Returns when the thread has ended;
  // the connection must be gone or requests still be served.
  void stop();

private:
  struct settling : run_item {
    notifier& of;
    loop* home = nullptr;
    std::coroutine_handle<> waiting;
    explicit settling(notifier& n) : of(n) {}
    using value_type = void;
    bool await_ready() const noexcept { return false; }
    template<class P>
    bool await_suspend(std::coroutine_handle<P> from) {
      home = from.promise().context.home;
      waiting = from;
      run = [](run_item& self) { static_cast<settling&>(self).waiting.resume(); };
      return of.announce(*this);
    }
    void await_resume() const noexcept {}
  };

  struct message {
    settling* told = nullptr; // nothing is sent; who waits goes on
    bool is_wake = false;
    u64 number = 0; // of an inode, or of an open file
    byte_range range{};
    [[nodiscard]] auto subject() const { return std::tuple(told, is_wake, number); }
  };
  // More than that and the oldest are merged into "everything": a bound, not a tuning knob.
  static constexpr std::size_t queued_max = 1024;

  void work();
  void queue(message m);
  // False: there is nothing to wait for.
  bool announce(settling& who);
  void send(const message& m) const;
  void send_invalidation(const message& m) const;
  void send_wake(u64 kernel_handle) const;

  const int fd_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<message> queue_;
  bool stop_ = false;
  std::thread thread_; // started by the first message, so that a process may fork before
};

} // namespace bgfs
