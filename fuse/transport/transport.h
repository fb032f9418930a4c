// SPDX-License-Identifier: MIT
// How requests come from the kernel and answers go back: through the session's descriptor
// (device_transport.h), and beside it through rings (ring_transport.h).
#pragma once

#include "graph/io/buffer_pool.h"
#include "graph/io/task.h"

#include <string_view>

namespace bgfs {

// Where the answer to one request goes, if it goes another way than through the transport: an entry
// of a ring, which stays its own until the answer was given.
struct answer_place {
  virtual ~answer_place() = default;
  // As transport::answer.
  virtual void answer(u64 unique, int os_error, std::span<const std::byte> head,
                      std::span<const std::byte> body) = 0;
  // Page-aligned memory for the body, of payload_length_max bytes: a body that lies there is not
  // copied. It held the payload of the request.
  [[nodiscard]] virtual std::span<std::byte> room() = 0;
};

// A request as it came. `bytes` lies in `storage`, so that the payload of a write is page-aligned;
// that of a request with a place lies there.
struct received {
  buffer storage;
  std::span<const std::byte> bytes;
  answer_place* place = nullptr; // null: the answer goes through the transport
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
