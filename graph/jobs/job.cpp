// SPDX-License-Identifier: MIT
#include "graph/jobs/job.h"

#include "graph/io/run_on.h"

#include <algorithm>
#include <cerrno>

namespace bgfs {
namespace {

constexpr u64 slice_length_least = MiB;
constexpr u64 slice_length_most = 256 * MiB;
constexpr u64 slice_length_first = 8 * MiB;

// Wakes whoever waits in a queue at some time.
struct alarm : timer {
  loop& home;
  wait_queue& sleepers;

  alarm(loop& l, wait_queue& q, steady_time at) : home(l), sleepers(q) {
    due = at;
    run = [](run_item& self) { static_cast<alarm&>(self).sleepers.wake_all(); };
    home.arm(*this);
  }
  ~alarm() { home.disarm(*this); }
};

std::string_view what_is_done(job_verb verb) {
  switch (verb) {
  case job_verb::cancel:
    return "cancelled";
  case job_verb::pause:
    return "paused";
  case job_verb::resume:
    return "resumed";
  case job_verb::set_speed:
    return "given another speed";
  case job_verb::complete:
    return "completed";
  case job_verb::dismiss:
    return "dismissed";
  }
  return "changed";
}

std::string_view what_to_do(job_state state, job_verb verb) {
  if (state == job_state::concluded)
    return verb == job_verb::dismiss ? "" : "; it is over, and can only be dismissed";
  if (state == job_state::null)
    return "; it is over, and nobody lists it any more";
  if (state == job_state::pending)
    return "; its last step is not taken back, and over soon";
  if (state == job_state::aborting)
    return "; it takes back what it has begun, and is over soon";
  if (verb == job_verb::dismiss)
    return "; cancel it, or wait until it is concluded";
  if (verb == job_verb::complete && state == job_state::standby)
    return "; resume it first";
  return verb == job_verb::complete ? "; wait until it is ready" : "";
}

} // namespace

job::job(loop& home, job_description what, event_sink* events)
    : home_(home), what_(std::move(what)), events_(events), slice_length_(slice_length_first) {
  limit_.set_speed(what_.bytes_per_second);
  clock_gettime(CLOCK_REALTIME, &made_);
}

job::~job() {
  BGFS_ASSERT(state_ == job_state::created || is_over(), "a job goes while its work runs");
}

// --- verbs -------------------------------------------------------------------------------------

result<> job::check(job_verb verb) const {
  const bool needs_pause_points =
      verb == job_verb::pause || verb == job_verb::resume || verb == job_verb::set_speed;
  if (needs_pause_points && !what_.has_pause_points)
    return fail(error_kind::unsupported,
                "job '{}' cannot be {}: a {} goes through without a point where it could pause; it "
                "can be cancelled",
                id(), what_is_done(verb), what_.type);
  if (verb == job_verb::complete && !what_.waits_to_complete)
    return fail(error_kind::unsupported, "job '{}' completes by itself, and needs not be told to",
                id());
  if (allows(state_, verb))
    return {};
  return fail(error_kind::busy, "job '{}' is {} and cannot be {} now{}", id(), to_string(state_),
              what_is_done(verb), what_to_do(state_, verb));
}

result<> job::cancel() {
  BGFS_CHECK(check(job_verb::cancel));
  is_cancelled_ = true;
  leave_pause();
  change_state(job_state::aborting);
  cancelling_.request();
  changed_.wake_all();
  return {};
}

result<> job::pause() {
  BGFS_CHECK(check(job_verb::pause));
  if (is_paused_by_user_)
    return fail(error_kind::invalid_argument, "job '{}' is paused already", id());
  is_paused_by_user_ = true;
  add_pause();
  return {};
}

result<> job::resume() {
  BGFS_CHECK(check(job_verb::resume));
  if (!is_paused_by_user_)
    return fail(error_kind::invalid_argument, "job '{}' was not paused, and cannot be resumed",
                id());
  is_paused_by_user_ = false;
  remove_pause();
  return {};
}

result<> job::complete() {
  BGFS_CHECK(check(job_verb::complete));
  is_told_to_complete_ = true;
  changed_.wake_all();
  return {};
}

result<> job::set_speed(u64 bytes_per_second) {
  BGFS_CHECK(check(job_verb::set_speed));
  limit_.set_speed(bytes_per_second);
  changed_.wake_all();
  return {};
}

void job::add_pause() {
  pauses_++;
  changed_.wake_all();
}

void job::remove_pause() {
  BGFS_ASSERT(pauses_ > 0);
  if (--pauses_ > 0)
    return;
  changed_.wake_all();
  rests_.wake_all();
}

task<void> job::settled() {
  const auto is_at_rest = [this] {
    return state_ == job_state::paused || state_ == job_state::standby;
  };
  while (pauses_ > 0 && what_.has_pause_points && !is_at_rest() && !is_over())
    co_await rests_.wait();
}

task<void> job::ended() {
  while (!is_over())
    co_await rests_.wait();
  if (failure_)
    co_await fail(*failure_);
}

// --- its work ----------------------------------------------------------------------------------

task<job_slice> job::pause_point(u64 spent) {
  return run_on(home_, rest(spent));
}

task<job_slice> job::rest(u64 spent) {
  BGFS_ASSERT(what_.has_pause_points, "a job that pauses says so in its description");
  measure(spent, home_.now());
  limit_.spend(spent, home_.now());
  for (;;) {
    co_await check_not_cancelled();
    if (pauses_ > 0)
      co_await stay_paused();
    else if (limit_.speed() != 0 && limit_.free_at() > home_.now())
      co_await wait_until(limit_.free_at());
    else
      break;
  }
  slice_begin_ = home_.now();
  if (limit_.speed() == 0)
    co_return job_slice{.length = slice_length_};
  co_return job_slice{.length = std::min(limit_.slice_length(), slice_length_), .is_limited = true};
}

// A cancellation has left the pause already.
task<void> job::stay_paused() {
  change_state(state_ == job_state::ready ? job_state::standby : job_state::paused);
  rests_.wake_all();
  while (pauses_ > 0 && !is_cancelled_)
    co_await changed_.wait();
  leave_pause();
}

// The cancellation of the task itself comes later, if the work runs on another loop.
result<> job::check_not_cancelled() const {
  if (!is_cancelled_)
    return {};
  return fail(error_kind::cancelled, "the job was cancelled");
}

void job::leave_pause() {
  if (state_ == job_state::paused)
    change_state(job_state::running);
  if (state_ == job_state::standby)
    change_state(job_state::ready);
}

task<void> job::wait_until(steady_time due) {
  const alarm ring(home_, changed_, due);
  co_await changed_.wait();
}

// A full slice that was over early makes the next ones longer; one that took too long, shorter.
void job::measure(u64 spent, steady_time now) {
  if (spent < slice_length_)
    return;
  const auto took = now - slice_begin_;
  if (took < rate_limit::slice / 2)
    slice_length_ = std::min(slice_length_ * 2, slice_length_most);
  else if (took > rate_limit::slice)
    slice_length_ = std::max(slice_length_ / 2, slice_length_least);
}

task<bool> job::may_complete() {
  if (!what_.waits_to_complete)
    co_return true;
  co_return co_await run_on(home_, await_completion());
}

task<bool> job::await_completion() {
  (void)co_await rest(0);
  if (state_ == job_state::running) {
    change_state(job_state::ready);
    if (events_ != nullptr)
      events_->emit("BLOCK_JOB_READY", described());
  }
  if (!is_told_to_complete_)
    co_await wait_until(home_.now() + rate_limit::slice);
  (void)co_await rest(0);
  co_return is_told_to_complete_;
}

task<void> job::begin_last_step() {
  return run_on(home_, enter_last_step());
}

task<void> job::enter_last_step() {
  co_await check_not_cancelled();
  change_state(job_state::pending);
}

// --- its life ----------------------------------------------------------------------------------

void job::begin() {
  change_state(job_state::running);
}

void job::finish(result<> outcome) {
  leave_pause(); // its work has failed there
  if (!outcome) {
    if (is_cancelled_ && outcome.error().kind() == error_kind::cancelled) {
      failure_ = error(error_kind::cancelled,
                       fmt::format("job '{}' was cancelled{}{}", id(),
                                   what_.when_cancelled.empty() ? "" : "; ", what_.when_cancelled),
                       ECANCELED);
    } else {
      failure_ = std::move(outcome).error();
    }
    if (state_ != job_state::aborting)
      change_state(job_state::aborting);
  } else if (state_ != job_state::pending && state_ != job_state::aborting) {
    change_state(job_state::pending);
  }
  if (!failure_)
    set_progress(total(), total());
  emit_outcome();
  change_state(job_state::concluded);
  rests_.wake_all();
}

void job::dismiss() {
  change_state(job_state::null);
}

void job::change_state(job_state next) {
  BGFS_ASSERT(may_follow(state_, next));
  state_ = next;
  if (events_ == nullptr)
    return;
  value data;
  data.set("id", id());
  data.set("status", to_string(next));
  events_->emit("JOB_STATUS_CHANGE", std::move(data));
}

value job::described() const {
  value data;
  data.set("device", id());
  data.set("type", what_.type);
  data.set("len", total());
  data.set("offset", done());
  data.set("speed", speed());
  return data;
}

void job::emit_outcome() const {
  if (events_ == nullptr)
    return;
  const bool has_failed = failure_ && failure_->os_error() != ECANCELED;
  value data = described();
  if (has_failed) {
    value why;
    why.set("device", id());
    why.set("action", "report");
    why.set("reason", failure_->message());
    events_->emit("BLOCK_JOB_ERROR", std::move(why));
    data.set("error", failure_->message());
  }
  events_->emit(failure_ && !has_failed ? "BLOCK_JOB_CANCELLED" : "BLOCK_JOB_COMPLETED",
                std::move(data));
}

} // namespace bgfs
