// SPDX-License-Identifier: MIT
// Serves reads and writes of raw files by lease (graph/model/lease.h): what is known of where their
// bytes live is enough, and no node is asked. On the loop of one queue; several queues do it side
// by side. Everything else, and what turns out to be more than system calls, is left to the home.
//
// What does not wait is done on the spot, in system calls of this thread, and answered at once; the
// rest goes through the loop's ring, as long as the memory of all that waits stays within a bound.
// A piece that fails or comes short is left to the home, which does the whole request again and
// knows how to say what is wrong.
#pragma once

#include "fuse/operations/leased_files.h"
#include "fuse/protocol/request.h"
#include "fuse/transport/transport.h"
#include "graph/base/back_off.h"
#include "graph/io/io_operation.h"

#include <atomic>

namespace bgfs {

// Who does what a lease does not cover. On the queue's loop; must not suspend.
struct home_sink {
  virtual ~home_sink() = default;
  virtual void take_home(received request) = 0;
  virtual void queue_is_idle() {} // nothing that waits for I/O is left
};

class leased_requests {
public:
  // More extents than that in one request, and the home does it.
  static constexpr std::size_t pieces_max = 32;

  // Requests that wait take no more than `memory_max` bytes; entries of a ring have their own.
  leased_requests(loop& on, unsigned queue, const leased_files& files, u64 memory_max,
                  transport& answers, home_sink& home);
  ~leased_requests();
  leased_requests(const leased_requests&) = delete;
  leased_requests& operator=(const leased_requests&) = delete;

  // True: the request was answered, or is going to be, and `request` was emptied unless its storage
  // is free for another. False: nothing was done.
  [[nodiscard]] bool take(const fuse_in_header& header, received& request);
  // Of those that take returned true for; by any thread.
  [[nodiscard]] u64 served() const { return served_.get(); }
  // Memory of those that wait; by any thread.
  [[nodiscard]] u64 held() const { return held_.load(std::memory_order_relaxed); }
  // Whose I/O has not ended.
  [[nodiscard]] unsigned running() const { return running_; }

private:
  struct piece;
  struct job;
  struct waiting;
  enum class progress : u8 { done, waits, cannot };

  [[nodiscard]] bool plan(job& j) const;
  [[nodiscard]] std::optional<resolved_extent> find(lease& by, u64 offset) const;
  progress do_at_once(job& j, piece& p);
  bool serve(job& j, received& request);
  [[nodiscard]] std::span<std::byte> room_for(u64 length, const received& request);
  [[nodiscard]] bool keep(job& j, received& request, waiting& by);
  [[nodiscard]] received copy_of(job& j, received& request);
  [[nodiscard]] bool wait_for_rest(job& j, received& request);
  void answer(const job& j, answer_place* place);
  void count(const job& j) const;
  void item_ended(waiting& w);

  loop& on_;
  const unsigned queue_;
  const leased_files& files_;
  transport& answers_;
  home_sink& home_;
  const u64 memory_max_;
  std::atomic<u64> held_{0}; // changed by this queue only
  back_off reads_, writes_;  // tries of what the page cache may hold
  own_counter served_;
  unsigned running_ = 0;
  std::vector<std::unique_ptr<waiting>> free_;
  buffer room_; // for answers that do not lie where the kernel takes them from, and do not wait
};

} // namespace bgfs
