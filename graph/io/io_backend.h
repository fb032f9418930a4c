// SPDX-License-Identifier: MIT
// What a loop asks of the kernel, in two implementations: io_uring, and epoll with a thread pool.
#pragma once

#include "graph/io/io_operation.h"

namespace bgfs {

class io_backend {
public:
  virtual ~io_backend() = default;
  virtual void submit(io_operation& operation) = 0;
  virtual void cancel(io_operation& operation) = 0;
  // Hands over what was submitted and appends what has completed. Waits for a completion, a wake-up
  // or `until`, whichever is first, unless `may_wait` is false.
  virtual void turn(bool may_wait, std::optional<steady_time> until,
                    std::vector<run_item*>& completed) = 0;
  [[nodiscard]] virtual bool takes_commands() const { return false; }
  [[nodiscard]] virtual std::string_view name() const = 0;
};

// `wake_fd` is an eventfd of the loop: becoming readable ends a wait.
[[nodiscard]] result<std::unique_ptr<io_backend>> make_uring_backend(int wake_fd);
[[nodiscard]] result<std::unique_ptr<io_backend>> make_threads_backend(int wake_fd, loop& home);

} // namespace bgfs
