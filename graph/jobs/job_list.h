// SPDX-License-Identifier: MIT
// The jobs of a mount. Those that run are here, and those that have failed while nobody waited for
// them, so that the reason can be read: until they are dismissed, or another of their name begins.
#pragma once

#include "graph/io/spawn.h"
#include "graph/jobs/job.h"

#include <vector>

namespace bgfs {

class job_list {
public:
  // Of those that have failed: the oldest is dismissed when there is another one.
  static constexpr std::size_t kept_max = 16;

  // `events` outlives the list; null: nobody is told.
  job_list(loop& home, event_sink* events) : home_(home), events_(events), working_(home) {}

  // Begins a job whose work is `work(job)`, a plain function that returns a task, which is called
  // on a later turn of the loop. Whatever it refers to outlives the job. error_kind::busy where one
  // of that name runs.
  [[nodiscard]] result<job_pointer> start(job_description what,
                                          std::function<task<void>(job&)> work);
  // Waits for the end of the job, and fails as it did. A caller who is interrupted cancels it, and
  // returns when it is over all the same.
  task<void> await_or_cancel(job_pointer which);

  [[nodiscard]] const std::vector<job_pointer>& all() const { return all_; } // oldest first
  [[nodiscard]] result<job_pointer> find(std::string_view id) const;
  [[nodiscard]] result<> dismiss(std::string_view id);

  // Cancels whatever can be cancelled, and refuses to start more.
  void stop();
  // Returns when none runs.
  task<void> join();

private:
  task<void> run(job_pointer which, std::function<task<void>(job&)> work);
  void concluded(const job_pointer& which);
  void take_off(const job_pointer& which);

  loop& home_;
  event_sink* events_;
  std::vector<job_pointer> all_;
  task_group working_;
  bool is_stopped_ = false;
};

} // namespace bgfs
