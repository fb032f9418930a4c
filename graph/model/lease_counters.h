// SPDX-License-Identifier: MIT
// What visits of a lease count: each queue for itself, so that no two threads write one counter.
// Read by the home, which adds to the nodes what is new since it last looked.
#pragma once

#include "graph/model/statistics.h"

#include <atomic>
#include <span>
#include <vector>

namespace bgfs {

// One request, or a part of one, that was served.
struct leased_request {
  bool is_write = false;
  u64 bytes = 0;
  u64 end = 0; // offset of the first byte behind it
  std::chrono::steady_clock::time_point ended;
  u64 took_ns = 0;
};

// Written by one thread, read by any.
class own_counter {
public:
  void add(u64 more) {
    value_.store(value_.load(std::memory_order_relaxed) + more, std::memory_order_release);
  }
  void raise_to(u64 at_least) {
    if (value_.load(std::memory_order_relaxed) < at_least)
      value_.store(at_least, std::memory_order_release);
  }
  [[nodiscard]] u64 get() const { return value_.load(std::memory_order_acquire); }

private:
  std::atomic<u64> value_{0};
};

struct operation_counters {
  own_counter count;
  own_counter bytes;
  own_counter time_ns;
  own_counter last_ended; // steady clock, nanoseconds
  own_counter highest_end;
  std::array<own_counter, latency_histogram::bin_count> latency;

  void add(const leased_request& r);
};

struct request_counters {
  operation_counters reads;
  operation_counters writes;

  void add(const leased_request& r) { (r.is_write ? writes : reads).add(r); }
};

struct alignas(64) path_counters : request_counters {};

// What was counted since a look before: for the statistics of nodes.
struct operation_delta {
  u64 count = 0, bytes = 0, time_ns = 0;
  std::array<u64, latency_histogram::bin_count> latency{};
  u64 last_ended = 0; // of all time, as highest_end
  u64 highest_end = 0;

  void add_to(operation_statistics& s) const;
};

// What the home has added to nodes so far.
class settled_operation {
public:
  // The counters of all queues, and what is new in them.
  [[nodiscard]] operation_delta look_at(std::span<const operation_counters* const> counters);

private:
  operation_delta known_;
};
struct settled_counters {
  settled_operation reads, writes;
};

} // namespace bgfs
