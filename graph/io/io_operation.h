// SPDX-License-Identifier: MIT
// One operation of the kernel, as the backends take it, and the awaits that make them.
//
// The awaits return what the system call would: a count, or a negative errno. They do not end the
// awaiting task; file (graph/io/file.h) turns the numbers into results. The buffers belong to the
// operation until the await returns.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/io/cancel.h"
#include "graph/io/loop.h"
#include "graph/io/task.h"

#include <span>
#include <sys/uio.h>

namespace bgfs {

enum class io_code : u8 {
  read,
  write,
  sync,
  sync_data,
  allocate,
  poll,
  command, // IORING_OP_URING_CMD, where loop::takes_commands
};

struct io_operation : run_item {
  io_code code = io_code::read;
  int fd = -1;
  int flags = 0; // RWF_* of reads and writes, the mode of allocate, the events of poll, the command
  std::span<const std::byte> argument; // of a command: 80 bytes at most
  const iovec* vectors = nullptr;
  unsigned vector_count = 0;
  byte_range range; // offset of reads and writes; both of allocate
  i64 result = 0;
  // Used by the backend that runs it.
  loop* home = nullptr;
  void (*complete)(run_item& self) = nullptr;
};

namespace detail {

struct io_await : io_operation {
  std::coroutine_handle<> waiting;
  iovec single;

  io_await(io_code c, int descriptor, iovec buffer, byte_range where, int with_flags)
      : single(buffer) {
    code = c;
    fd = descriptor;
    range = where;
    flags = with_flags;
    run = [](run_item& self) { static_cast<io_await&>(self).waiting.resume(); };
  }
  bool await_ready() const noexcept { return false; }
  template<class P>
  void await_suspend(std::coroutine_handle<P> from) {
    waiting = from;
    if (single.iov_base != nullptr) {
      vectors = &single;
      vector_count = 1;
    }
    from.promise().context.home->submit(*this);
  }
  i64 await_resume() const noexcept { return result; }
};

// A poll ends early when its task is cancelled; all others run to their end.
struct poll_await : io_await {
  cancel_hook hook;
  poll_await(int descriptor, short events) : io_await(io_code::poll, descriptor, {}, {}, events) {}
  template<class P>
  void await_suspend(std::coroutine_handle<P> from) {
    io_await::await_suspend(from);
    loop* home = from.promise().context.home;
    hook.attach(from.promise().context.cancel, [this, home] { home->cancel(*this); });
  }
  i64 await_resume() noexcept {
    hook.detach();
    return result;
  }
};

} // namespace detail

[[nodiscard]] inline detail::io_await io_read(int fd, std::span<std::byte> buffer, u64 offset,
                                              int rwf_flags = 0) {
  return {io_code::read, fd, {buffer.data(), buffer.size()}, {offset, buffer.size()}, rwf_flags};
}

[[nodiscard]] inline detail::io_await io_write(int fd, std::span<const std::byte> buffer,
                                               u64 offset, int rwf_flags = 0) {
  auto* data = const_cast<std::byte*>(buffer.data()); // an iovec cannot say that it is only read
  return {io_code::write, fd, {data, buffer.size()}, {offset, buffer.size()}, rwf_flags};
}

[[nodiscard]] inline detail::io_await io_sync(int fd, bool data_only) {
  return {data_only ? io_code::sync_data : io_code::sync, fd, {}, {}, 0};
}

// fallocate(2): `mode` is FALLOC_FL_*.
[[nodiscard]] inline detail::io_await io_allocate(int fd, int mode, byte_range range) {
  return {io_code::allocate, fd, {}, range, mode};
}

// Waits until one of `events` (POLLIN, ...) holds; returns the events, or -ECANCELED.
[[nodiscard]] inline detail::poll_await io_poll(int fd, short events) {
  return {fd, events};
}

} // namespace bgfs
