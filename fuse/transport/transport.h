// SPDX-License-Identifier: MIT
// How requests come from the kernel and answers go back. One implementation now: the session's
// descriptor (device_transport.h).
#pragma once

#include "graph/io/buffer_pool.h"
#include "graph/io/task.h"

#include <string_view>

namespace bgfs {

// A request as it came. `bytes` lies in `storage`, so that the payload of a write is page-aligned.
struct received {
  buffer storage;
  std::span<const std::byte> bytes;
};

struct transport {
  virtual ~transport() = default;

  // The next request; nullopt when the kernel has ended the connection, or when the waiting task
  // was cancelled. `reuse` is the storage of an earlier request that is no longer needed, or empty.
  virtual task<std::optional<received>> receive(buffer reuse) = 0;
  // Answers a request; does not suspend. os_error is 0 or an errno, with which there is no body. An
  // answer that the kernel no longer wants (the process is gone) is dropped.
  virtual void answer(u64 unique, int os_error, std::span<const std::byte> head,
                      std::span<const std::byte> body) = 0;
  [[nodiscard]] virtual std::string_view name() const = 0;
};

} // namespace bgfs
