// SPDX-License-Identifier: MIT
// Making what was written durable. Flushes of one node run one at a time; those that find nothing
// written since the last one cost no trip to the disk.
#include "graph/model/graph.h"

namespace bgfs {
namespace {

// Passes the turn on, whatever the flush ended with.
struct flush_turn {
  bool& is_flushing;
  wait_queue& waiters;
  ~flush_turn() {
    is_flushing = false;
    waiters.wake_one();
  }
};

// What is durable before and after, however the flush ends.
struct flush_trace {
  const trace_log& log;
  const std::string& name;
  const u64& flushed;
  flush_trace(const trace_log& l, const std::string& n, u64 generation, const u64& f)
      : log(l), name(n), flushed(f) {
    trace<point::flush_begin>(log, name, generation, flushed);
  }
  ~flush_trace() { trace<point::flush_end>(log, name, flushed); }
  flush_trace(const flush_trace&) = delete;
  flush_trace& operator=(const flush_trace&) = delete;
};

} // namespace

task<void> node::flush() {
  if (loss_)
    co_await fail(*loss_);
  if (is_read_only() || !is_active())
    co_return;
  const auto since = owner_->home().now();
  requests_.settle_leases(); // a visit's write counts, too, if it ended before this (L3)
  if (other_writers_ > 0)
    write_generation_++;                    // there may have been writes that nobody told of
  const u64 generation = write_generation_; // what this flush promises: all that ended before it
  while (is_flushing_)
    co_await flush_waiters_.wait();
  is_flushing_ = true;
  const flush_turn turn{is_flushing_, flush_waiters_};
  if (flushed_generation_ >= generation)
    statistics_.merged_flushes++;
  result<> outcome = co_await as_result(flush_once(generation));
  account(operation::flush, 0, since, outcome);
  co_await std::move(outcome);
}

task<void> node::flush_once(u64 generation) {
  const flush_trace traced(owner_->home().log(), name_, generation, flushed_generation_);
  if (tells_primary())
    co_await tell_primary(debug_event::flush_to_os);
  if (flushable_ != nullptr)
    co_await flushable_->write_back();
  const bool goes_to_disk = !generic_.cache_no_flush && flushed_generation_ < generation;
  if (goes_to_disk && tells_primary())
    co_await tell_primary(debug_event::flush_to_disk);
  if (goes_to_disk && flushable_ != nullptr)
    co_await flushable_->flush_to_disk();
  std::optional<error> first;
  for (const auto& e : children_) {
    if ((e->granted().used & (permission::write | permission::write_unchanged)) == 0)
      continue;
    if (flushable_ != nullptr && !flushable_->needs_flush(*e))
      continue;
    result<> flushed = co_await as_result(e->flush());
    if (!flushed && !first)
      first = std::move(flushed).error();
  }
  if (first)
    co_await fail(*std::move(first));
  flushed_generation_ = std::max(flushed_generation_, generation);
}

} // namespace bgfs
