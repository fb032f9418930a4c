// SPDX-License-Identifier: MIT
#include "graph/jobs/job_list.h"

#include <algorithm>

namespace bgfs {

result<job_pointer> job_list::start(job_description what, std::function<task<void>(job&)> work) {
  if (is_stopped_)
    return fail(error_kind::busy, "job '{}' cannot begin: all of them are being ended", what.id);
  if (const result<job_pointer> same = find(what.id)) {
    if (!(*same)->is_over())
      return fail(error_kind::busy, "job '{}' is {} already; wait for it, or cancel it", what.id,
                  to_string((*same)->state()));
    take_off(*same);
  }
  auto made = std::make_shared<job>(home_, std::move(what), events_);
  all_.push_back(made);
  working_.spawn(run(made, std::move(work)));
  return made;
}

namespace {

// Starts the work under the cancellation of its job.
struct begun_work {
  event over;
  result<> outcome;
};

task<void> await_work(loop& home, job& which, task<void> work) {
  begun_work begun;
  spawn(home, std::move(work), &which.cancellation(), [&begun](result<> outcome) {
    begun.outcome = std::move(outcome);
    begun.over.set();
  });
  co_await shielded(begun.over.wait());
  co_await std::move(begun.outcome);
}

} // namespace

task<void> job_list::run(job_pointer which, std::function<task<void>(job&)> work) {
  result<> outcome = fail(error_kind::cancelled, "the job was cancelled");
  if (!which->was_cancelled()) {
    which->begin();
    outcome = co_await as_result(await_work(home_, *which, work(*which)));
  }
  which->finish(std::move(outcome));
  concluded(which);
}

// What was cancelled was so by somebody who knows.
void job_list::concluded(const job_pointer& which) {
  const bool is_worth_keeping =
      which->failure() != nullptr && !which->was_cancelled() && !which->description().has_audience;
  if (!is_worth_keeping) {
    take_off(which);
    return;
  }
  if (std::ranges::count_if(all_, &job::is_over) > static_cast<i64>(kept_max))
    take_off(*std::ranges::find_if(all_, &job::is_over));
}

void job_list::take_off(const job_pointer& which) {
  const job_pointer gone = which; // which may be the list's own
  gone->dismiss();
  std::erase(all_, gone);
}

result<job_pointer> job_list::find(std::string_view id) const {
  const auto at = std::ranges::find(all_, id, [](const job_pointer& j) { return j->id(); });
  if (at != all_.end())
    return *at;
  return fail(error_kind::not_found,
              "there is no job '{}': it is over and had no error, or never "
              "began",
              id);
}

result<> job_list::dismiss(std::string_view id) {
  BGFS_TRY(const job_pointer which, find(id));
  BGFS_CHECK(which->check(job_verb::dismiss));
  take_off(which);
  return {};
}

task<void> job_list::await_or_cancel(job_pointer which) {
  const result<> waited = co_await as_result(which->ended());
  if (which->is_over()) {
    co_await waited;
    co_return;
  }
  (void)which->cancel(); // one in its last step goes on to its end
  co_await shielded(which->ended());
}

void job_list::stop() {
  is_stopped_ = true;
  for (const job_pointer& j : std::vector<job_pointer>(all_))
    (void)j->cancel();
}

task<void> job_list::join() {
  (void)co_await as_result(working_.join()); // each has kept what went wrong
}

} // namespace bgfs
