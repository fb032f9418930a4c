// SPDX-License-Identifier: MIT
// The request loop: takes requests from the transport, runs each as a task of its own, answers.
#pragma once

#include "fuse/operations/leased_requests.h"
#include "fuse/operations/operations.h"
#include "fuse/operations/request_queue.h"
#include "fuse/transport/ring_transport.h"
#include "graph/io/spawn.h"

namespace bgfs {

class server final : private request_sink, private home_sink {
public:
  // Interrupts that came before what they interrupt, which are remembered: the two travel different
  // ways.
  static constexpr std::size_t early_interrupts_max = 32;

  server(mount_state& mount, transport& requests);
  ~server() override;
  server(const server&) = delete;
  server& operator=(const server&) = delete;

  // Serves until the kernel ends the connection (unmounted, aborted) or stop() was called, and all
  // requests taken until then are answered.
  task<void> run();
  // No further request is taken. On the loop of the mount.
  void stop() { stopping_.request(); }
  // Set when the kernel and this program have agreed on how to talk: the mount is usable.
  [[nodiscard]] event& ready() { return ready_; }
  // Why they could not agree.
  [[nodiscard]] const error* refusal() const { return refusal_ ? &*refusal_ : nullptr; }

private:
  struct pending;
  struct serving;
  friend struct serving;
  // Where an answer goes: an entry of a ring, or (null) the transport.
  using place = answer_place*;

  void take_from(received request) override;
  void take_home(received request) override;
  void queue_is_idle() override { idle_.wake_all(); }
  task<void> open_queues();
  task<void> open_ring(std::vector<std::vector<u16>> kernel_queues);
  [[nodiscard]] result<> start_queues(const std::vector<std::vector<u16>>& kernel_queues);

  task<void> take_all();
  // Returns the storage if it is not needed any more.
  buffer take(received request);
  buffer take_long_way(const fuse_in_header& header, received request);
  [[nodiscard]] buffer keep_payload(ask::write& what, received& request) const;
  bool take_at_once(const fuse_in_header& header, request_body& body, place to);
  static serving serve(server& self, fuse_in_header header, request_body body, buffer storage,
                       place to);
  task<reply> perform(fuse_in_header header, request_body& body, place to);
  task<reply> perform_alone(fuse_in_header header, request_body& body);
  task<reply> perform_looking(fuse_in_header header, request_body& body);
  task<reply> perform_other(fuse_in_header header, request_body& body);
  void initialise(const fuse_in_header& header, const ask::init& what);
  void interrupt(u64 unique);
  void cancel_soon(pending& p);
  task<void> interrupt_later(u64 unique);
  void send(place to, u64 unique, const result<reply>& outcome);
  void answer(place to, u64 unique, int os_error, std::span<const std::byte> head = {},
              std::span<const std::byte> body = {});
  void enlist(pending& p);
  void retire(pending& p);

  mount_state& mount_;
  transport& transport_;
  std::unique_ptr<ring_transport> ring_; // null: everything comes through transport_
  operations operations_;
  leased_requests by_lease_;                           // of the mount's own loop
  std::vector<std::unique_ptr<request_queue>> queues_; // on threads of their own
  std::array<u64, early_interrupts_max> early_interrupts_{};
  std::size_t early_interrupt_count_ = 0;
  pending* pending_ = nullptr; // in flight, newest first
  unsigned running_ = 0;
  wait_queue idle_;
  cancel_state stopping_;
  event ready_;
  std::optional<error> refusal_;
  task_group interruptions_;
};

} // namespace bgfs
