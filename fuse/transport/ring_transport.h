// SPDX-License-Identifier: MIT
// Requests over io_uring (Linux 6.14): each entry of a queue is a command in the loop's own ring
// that completes when the kernel asks something. The answer is one more command, which also fetches
// the next request, so that a turn of the loop - one system call - carries any number of both.
//
// Forgets, interrupts and notifications still travel through the session's descriptor.
#pragma once

#include "fuse/transport/transport.h"

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace bgfs {

class ring_transport {
public:
  static constexpr unsigned queue_depth_max = 32;

  // `fd` is borrowed: that of a session whose INIT was answered with init_over_io_uring. `queues`
  // are those of the kernel that this one serves, each with `depth` entries; others serve the rest,
  // and the kernel begins when each queue has an entry.
  ring_transport(loop& home, int fd, request_sink& to, std::span<const u16> queues, unsigned depth);
  ~ring_transport();
  ring_transport(const ring_transport&) = delete;
  ring_transport& operator=(const ring_transport&) = delete;

  // Hands over all entries, after which the kernel may ask, and waits until it has taken them.
  task<void> open();
  // Serves nothing more. Nothing can take the entries back but the end of the connection, or that
  // of the loop's ring; until then the kernel may fill them, so what still is in its hands stays in
  // memory for good: a mount ends with its process.
  static void close(std::unique_ptr<ring_transport> ring);
  // Requests that were sent to another loop and whose answers have not come back.
  [[nodiscard]] unsigned away() const { return away_; }

  // How many entries of each queue have payloads of so many bytes together, if every queue has one
  // at least. Only what is used of their memory is ever touched.
  [[nodiscard]] static unsigned depth_within(u64 payload_bytes);

private:
  class entry;
  void has_ended(int status);

  loop& home_;
  const int fd_;
  request_sink& to_;
  std::vector<std::unique_ptr<entry>> entries_;
  unsigned out_ = 0; // entries that have not ended
  unsigned away_ = 0;
  bool is_closing_ = false;
  int refusal_ = 0; // errno of the first entry that was not taken
};

// How many queues the kernel wants: one for each possible processor.
[[nodiscard]] unsigned count_possible_processors();
// "0-3,8": how many that are; nullopt: it cannot be read.
[[nodiscard]] std::optional<unsigned> count_in_list(std::string_view text);

} // namespace bgfs
