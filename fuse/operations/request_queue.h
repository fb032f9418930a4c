// SPDX-License-Identifier: MIT
// One thread more that takes requests from the kernel and serves by lease what it can; what it
// cannot it sends to the loop of the mount, which answers through it. With one for each processor a
// request is served where its caller runs, and no other processor has to be woken for it.
#pragma once

#include "fuse/operations/leased_requests.h"
#include "fuse/transport/ring_transport.h"
#include "fuse/transport/spinning.h"
#include "graph/io/file.h"
#include "graph/io/sync.h"

#include <thread>

namespace bgfs {

// Storage with long requests that the mount's loop has not taken over yet, of one queue.
struct storage_away {
  unsigned count = 0;
  wait_queue less;
};

class request_queue final : private request_sink, private home_sink {
public:
  struct setup {
    unsigned index = 1;                // among those that visit leases; 0 is the mount's own loop
    int fd = -1;                       // of the session; borrowed
    std::vector<u16> queues;           // of the kernel's ring; empty: /dev/fuse, through a clone
    unsigned depth = 1;                // entries for each of them
    u64 leased_memory_max = 0;         // as leased_requests takes it
    std::size_t kept_bytes_max = 0;    // free buffers kept for the next request
    std::optional<unsigned> processor; // where the thread stays; nullopt: anywhere
    const leased_files* files = nullptr;
    home_address home;
  };
  // Over /dev/fuse no further request is taken while the mount's loop has so many long ones before
  // it, each in storage of its own.
  static constexpr unsigned storage_away_max = 4;

  // Starts the thread; nothing is taken before open().
  [[nodiscard]] static result<std::unique_ptr<request_queue>> start(setup how);
  ~request_queue();
  request_queue(const request_queue&) = delete;
  request_queue& operator=(const request_queue&) = delete;

  // These two on the mount's loop. open: the kernel may ask.
  task<void> open();
  // Takes nothing more and waits for the I/O of what it serves itself. What was sent home was
  // answered before.
  task<void> finish();
  [[nodiscard]] u64 served() const { return by_lease_->served(); }
  [[nodiscard]] u64 held() const { return by_lease_->held(); }

private:
  explicit request_queue(setup how) : how_(std::move(how)) {}
  void take_from(received request) override;
  void take_home(received request) override;
  void queue_is_idle() override { idle_.wake_all(); }
  void prepare_for_journey(received& request);
  void watch_for_answers();
  task<void> open_here();
  task<void> finish_here();
  task<void> take_all();
  void work();

  setup how_;
  std::unique_ptr<loop> loop_;
  std::unique_ptr<transport> device_; // answers of requests without a place; null with a ring
  descriptor clone_;
  std::unique_ptr<leased_requests> by_lease_;
  std::unique_ptr<ring_transport> ring_;
  storage_away away_;
  struct watch : run_item {
    request_queue* of = nullptr;
    bool is_posted = false;
  };
  watch watch_;
  spinning spins_{true};
  cancel_state stopping_;
  bool is_open_ = false;
  event taken_all_;
  wait_queue idle_;
  std::thread thread_;
};

} // namespace bgfs
