// SPDX-License-Identifier: MIT
// Tells the kernel what it must no longer believe. Notifications block until dirty pages have been
// written through us, so they are sent by this object's own thread and nobody awaits them.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/io/loop.h"
#include "graph/io/task.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
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

  // How long the kernel may believe attributes and names that it is told to keep (kernel_may_keep).
  static constexpr std::chrono::seconds kept_for{1};

  // More than that and the oldest are merged into "everything": a bound, not a tuning knob.
  static constexpr std::size_t queued_max = 1024;

  // Attributes and cached bytes of the range are read anew. Returns at once; any thread.
  void invalidate(u64 inode, byte_range range);
  // The kernel asks for the attributes again; it waits for nothing to do so.
  void forget_attributes(u64 inode);
  // The kernel asks for the name again.
  void forget_name(u64 directory, std::string name);
  // Who polls an open file, by the kernel's number of it, looks again. Returns at once; any thread.
  void wake_poll(u64 kernel_handle);
  // Waits until everything that is queued now was sent: whoever looks afterwards sees what is true
  // now. Never in a request on a raw file: what is sent may wait for that.
  [[nodiscard]] auto settled() { return settling{*this}; }
  // Blocks until all that was queued until now was sent, but no longer than kept_for: by then the
  // kernel asks by itself. True if they all are out. Not on a loop.
  bool wait_until_sent();
  // Whether there is anything to wait for. Any thread.
  [[nodiscard]] bool has_queued() const;
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

  // Those that wait for nobody first: merging puts them in this order. Who waits for all comes
  // last.
  enum class kind : u8 { attributes, wake, name, inode, told };
  struct message {
    kind what = kind::inode;
    u64 number = 0; // of an inode, or of an open file
    byte_range range{};
    std::string name{};
    settling* told = nullptr; // nothing is sent; who waits goes on
    u64 ticket = 0;           // in the order they were queued
    [[nodiscard]] auto subject() const { return std::tie(what, number, name, told); }
  };
  void work();
  void queue(message m);
  // False: there is nothing to wait for.
  bool announce(settling& who);
  void merge();
  [[nodiscard]] bool is_sent(u64 ticket) const;
  void send(const message& m) const;
  void send_invalidation(const message& m) const;
  void send_forget_name(const message& m) const;

  const int fd_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable sent_;
  std::deque<message> queue_;
  u64 last_ticket_ = 0;
  u64 sending_ = 0; // the ticket of the message that is being sent; 0: none
  bool stop_ = false;
  std::thread thread_; // started by the first message, so that a process may fork before
};

} // namespace bgfs
