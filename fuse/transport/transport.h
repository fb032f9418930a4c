// SPDX-License-Identifier: MIT
// How requests come from the kernel and answers go back: through the session's descriptor
// (device_transport.h), and beside it through rings (ring_transport.h).
#pragma once

#include "graph/io/buffer_pool.h"
#include "graph/io/task.h"

#include <string_view>

namespace bgfs {

struct received;
struct request_sink;

// The loop of the mount, seen from another: requests are taken there.
struct home_address {
  loop* at = nullptr;
  request_sink* sink = nullptr;
};

// Where the answer to one request goes, if it goes another way than through the transport: an entry
// of a ring, which stays its own until the answer was given.
struct answer_place {
  virtual ~answer_place() = default;
  // As transport::answer. By whoever has the request: the loop that took it, or the one it was sent
  // to.
  virtual void answer(u64 unique, int os_error, std::span<const std::byte> head,
                      std::span<const std::byte> body) = 0;
  // Page-aligned memory for the body, of payload_length_max bytes: a body that lies there is not
  // copied. It held the payload of the request. Empty: there is none.
  [[nodiscard]] virtual std::span<std::byte> room() = 0;
  // The bytes of the request are no longer needed, though its answer is yet to come.
  virtual void let_go() {}
  // Instead of an answer, to a request that gets none.
  virtual void drop() = 0;
  // The request goes on to the loop of the mount, which answers it.
  virtual void send_home(received request, home_address to) = 0;
};

// A request as it came. `bytes` lies in `storage`, so that the payload of a write is page-aligned;
// that of a request with a place lies there.
struct received {
  buffer storage;
  std::span<const std::byte> bytes;
  answer_place* place = nullptr; // null: the answer goes through the transport
};

// Who serves what comes. On the loop; must not suspend.
struct request_sink {
  virtual ~request_sink() = default;
  virtual void take_from(received request) = 0;
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
