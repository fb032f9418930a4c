// SPDX-License-Identifier: MIT
// A job: long work that goes on while everything is served, and that can be looked at, paused,
// slowed down, told to complete, and cancelled (reference section 4.1).
//
// A job is of one loop - its home -, where all of its methods are called; the few that its work
// calls from whatever loop it runs on say so.
#pragma once

#include "graph/io/sync.h"
#include "graph/jobs/job_state.h"
#include "graph/jobs/rate_limit.h"
#include "graph/model/events.h"

#include <atomic>
#include <ctime>
#include <functional>
#include <memory>

namespace bgfs {

struct job_description {
  std::string id;                  // unique among the jobs of a list
  std::string type;                // "commit"
  bool has_pause_points = false;   // it can be paused and has a speed
  bool waits_to_complete = false;  // it becomes ready, and goes on when it is told to
  u64 bytes_per_second = 0;        // its speed at first; 0: unlimited
  std::string when_cancelled = {}; // what its end then means, for the message: "'web' keeps ..."
  // Its outcome is told to who has started it: nobody else has to find it afterwards.
  bool has_audience = false;
};

// What a job may do until its next pause point.
struct job_slice {
  u64 length = 0;          // bytes that take some 100 ms, or what its speed allows in them
  bool is_limited = false; // by a speed that somebody has set
};

class job {
public:
  // `events` outlives the job; null: nobody is told.
  job(loop& home, job_description what, event_sink* events);
  ~job();
  job(const job&) = delete;
  job& operator=(const job&) = delete;

  // --- what it is -----------------------------------------------------------------------------
  [[nodiscard]] const std::string& id() const { return what_.id; }
  [[nodiscard]] const job_description& description() const { return what_; }
  [[nodiscard]] job_state state() const { return state_; }
  [[nodiscard]] u64 speed() const { return limit_.speed(); }
  // Bytes, or whatever else its work counts in. The total may grow; the end has both equal.
  [[nodiscard]] u64 done() const { return done_.load(std::memory_order_relaxed); }
  [[nodiscard]] u64 total() const { return total_.load(std::memory_order_relaxed); }
  [[nodiscard]] const std::timespec& made() const { return made_; }
  // Why it has failed, cancelled ones included; null: it has not.
  [[nodiscard]] const error* failure() const { return failure_ ? &*failure_ : nullptr; }
  [[nodiscard]] bool is_over() const {
    return state_ == job_state::concluded || state_ == job_state::null;
  }
  [[nodiscard]] bool was_cancelled() const { return is_cancelled_; }

  // --- verbs ----------------------------------------------------------------------------------
  // Refused in states that job_state.h says do not take them, and by jobs that cannot
  // (error_kind::unsupported). None suspends: pausing and cancelling take effect at the next pause
  // point, or where the work waits.
  [[nodiscard]] result<> cancel();
  [[nodiscard]] result<> pause();  // by the user, who may do so once
  [[nodiscard]] result<> resume(); // what the user has paused
  [[nodiscard]] result<> complete();
  [[nodiscard]] result<> set_speed(u64 bytes_per_second);
  [[nodiscard]] result<> check(job_verb verb) const; // whether it would take it now

  // Returns when it is at rest - paused, or over -, or nothing asks it to be any longer.
  task<void> settled();
  // Returns when it is over, and fails with what it has failed with.
  task<void> ended();

  // Keeps it at a pause point, on top of what the user wants, for as long as it lives. Of a job
  // without pause points it does nothing.
  class [[nodiscard]] hold {
  public:
    explicit hold(job& of) : of_(of) { of_.add_pause(); }
    ~hold() { of_.remove_pause(); }
    hold(const hold&) = delete;
    hold& operator=(const hold&) = delete;

  private:
    job& of_;
  };

  // --- for its work, on any loop --------------------------------------------------------------
  // A place where none of its requests is in flight, and `spent` bytes were copied since the last
  // one: waits as long as the job is paused or its speed demands. Fails when it is cancelled.
  task<job_slice> pause_point(u64 spent);
  // As pause_point; the work is done but for its last step. Returns true when that is to be taken,
  // and false some 100 ms later, to see whether there is more to do after all.
  task<bool> may_complete();
  // From here on it is neither cancelled nor paused: fails if it was cancelled before.
  task<void> begin_last_step();
  void set_progress(u64 done, u64 total) {
    done_.store(done, std::memory_order_relaxed);
    total_.store(total, std::memory_order_relaxed);
  }

  // --- for the list that it is in -------------------------------------------------------------
  [[nodiscard]] cancel_state& cancellation() { return cancelling_; }
  void begin();
  void finish(result<> outcome);
  void dismiss(); // over

private:
  void change_state(job_state next);
  void leave_pause();
  void add_pause();
  void remove_pause();
  task<job_slice> rest(u64 spent);
  task<bool> await_completion();
  task<void> enter_last_step();
  task<void> stay_paused();
  [[nodiscard]] result<> check_not_cancelled() const;
  task<void> wait_until(steady_time due);
  void measure(u64 spent, steady_time now);
  void emit_outcome() const;
  [[nodiscard]] value described() const;

  loop& home_;
  const job_description what_;
  event_sink* events_;
  std::timespec made_{};
  job_state state_ = job_state::created;
  cancel_state cancelling_;
  bool is_cancelled_ = false;
  bool is_paused_by_user_ = false;
  bool is_told_to_complete_ = false;
  unsigned pauses_ = 0; // with that of the user
  rate_limit limit_;
  u64 slice_length_; // what takes some 100 ms without a limit
  steady_time slice_begin_{};
  std::atomic<u64> done_{0};
  std::atomic<u64> total_{0};
  std::optional<error> failure_;
  wait_queue changed_; // whatever a pause point looks at
  wait_queue rests_;   // it is at rest, or over, or need not be
};

// By the list, by who waits for its end, and by what is open of it.
using job_pointer = std::shared_ptr<job>;

} // namespace bgfs
