// SPDX-License-Identifier: MIT
#include "graph/model/tracked_request.h"

#include "graph/model/lease.h"

#include <algorithm>

namespace bgfs {

std::string_view to_string(request_type type) {
  switch (type) {
  case request_type::read:
    return "read";
  case request_type::write:
    return "write";
  case request_type::discard:
    return "discard";
  case request_type::truncate:
    return "truncate";
  }
  return "unknown";
}

u64 request_list::oldest() const {
  u64 sequence = first_ != nullptr ? first_->sequence() : sequence_ + 1;
  for (visited& v : leases_)
    sequence = std::min(sequence, oldest_visit(v));
  return sequence;
}

// Visits have no numbers; turns of their lease say when those of a time have ended.
u64 request_list::oldest_visit(visited& v) const {
  if (v.by->is_empty()) // whoever enters now sees what was retired
    return sequence_ + 1;
  if (v.turn != 0 && v.by->has_turned(v.turn)) {
    v.safe = v.marked + 1;
    v.turn = 0;
  }
  if (v.turn == 0) {
    v.marked = sequence_;
    v.turn = v.by->ask_for_turn();
  }
  return v.safe;
}

void request_list::add_lease(lease& l) {
  leases_.push_back({.by = &l});
  if (exclusions_ > 0)
    l.close();
}

void request_list::remove_lease(lease& l) {
  std::erase_if(leases_, [&](const visited& v) { return v.by == &l; });
  if (exclusions_ > 0)
    l.open();
}

void request_list::exclude_leases() {
  if (exclusions_++ == 0)
    for (const visited& v : leases_)
      v.by->close();
}

void request_list::admit_leases() {
  BGFS_ASSERT(exclusions_ > 0);
  if (--exclusions_ == 0)
    for (const visited& v : leases_)
      v.by->open();
}

bool request_list::has_visitors() const {
  return std::ranges::any_of(leases_, [](const visited& v) { return !v.by->is_empty(); });
}

task<void> request_list::wait_for_visitors() {
  for (;;) {
    // They are closed, and may go while we wait: one after the other, looked up anew.
    const auto busy =
        std::ranges::find_if(leases_, [](const visited& v) { return !v.by->is_empty(); });
    if (busy == leases_.end())
      co_return;
    co_await busy->by->turn();
  }
}

void request_list::settle_leases() const {
  for (const visited& v : leases_)
    v.by->settle_counters();
}

void request_list::enter_driver(tracked_request& request) {
  entering_ = &request;
  request.has_begun_ = true;
}

task<void> request_list::wait_idle() {
  while (in_flight_ > 0)
    co_await idle_.wait();
}

tracked_request::tracked_request(request_list& list, request_type type, byte_range range,
                                 std::chrono::steady_clock::time_point since)
    : list_(list), sequence_(++list.sequence_), type_(type), range_(range), overlap_(range),
      previous_(list.last_), since_(since) {
  (previous_ != nullptr ? previous_->next_ : list.first_) = this;
  list.last_ = this;
  list.in_flight_++;
  trace<point::request_begin>(log(), list.node_name_, to_string(type), range.offset, range.length);
}

tracked_request::~tracked_request() {
  trace<point::request_end>(log(), list_.node_name_, to_string(type_), range_.offset, range_.length,
                            elapsed_us(since_));
  (previous_ != nullptr ? previous_->next_ : list_.first_) = next_;
  (next_ != nullptr ? next_->previous_ : list_.last_) = previous_;
  list_.in_flight_--;
  if (is_serialising_) {
    list_.serialising_--;
    list_.admit_leases();
  }
  if (list_.entering_ == this)
    list_.entering_ = nullptr;
  if (!ended_.is_empty())
    for (tracked_request* other = list_.first_; other != nullptr; other = other->next_)
      if (other->waiting_for_ == this)
        other->waiting_for_ = nullptr; // it stays is_waiting until it runs
  ended_.wake_all();
  if (list_.in_flight_ == 0)
    list_.idle_.wake_all();
}

void tracked_request::serialise_over(byte_range range) {
  if (!is_serialising_) {
    list_.serialising_++;
    list_.exclude_leases();
  }
  is_serialising_ = true;
  overlap_ = byte_range::between(std::min(overlap_.offset, range.offset),
                                 std::max(overlap_.end(), range.end()));
}

bool tracked_request::waits_for(const tracked_request& other) const {
  const tracked_request* at = waiting_for_;
  while (at != nullptr && at != &other)
    at = at->waiting_for_;
  return at != nullptr;
}

tracked_request* tracked_request::find_conflict() const {
  if (list_.serialising_ == 0)
    return nullptr;
  for (tracked_request* other = list_.first_; other != nullptr; other = other->next_) {
    if (other == this)
      continue;
    if (!is_serialising_ && !other->is_serialising_)
      continue;
    if (other->is_waiting_ && (!other->has_begun_ || other->waits_for(*this)))
      continue;
    if (other->overlap_.overlaps(overlap_))
      return other;
  }
  return nullptr;
}

// Ends the wait also when it is interrupted.
struct tracked_request::waiting_mark {
  tracked_request& who;
  waiting_mark(tracked_request& waiter, tracked_request& other) : who(waiter) {
    who.is_waiting_ = true;
    who.waiting_for_ = &other;
  }
  ~waiting_mark() {
    who.is_waiting_ = false;
    who.waiting_for_ = nullptr;
  }
  waiting_mark(const waiting_mark&) = delete;
  waiting_mark& operator=(const waiting_mark&) = delete;
};

task<void> tracked_request::wait_for_conflicts() {
  if (is_serialising_ && list_.has_visitors())
    co_await list_.wait_for_visitors();
  while (tracked_request* other = find_conflict()) {
    trace<point::request_wait>(log(), list_.node_name_, to_string(type_), range_.offset,
                               range_.length, to_string(other->type_), other->range_.offset);
    const waiting_mark mark(*this, *other);
    co_await other->ended_.wait();
  }
}

result<> tracked_request::check_conflicts() const {
  if (is_serialising_ && list_.has_visitors())
    return fail(error_kind::busy, "{} bytes at {:#x} may be in use by requests that pass the list",
                range_.length, range_.offset);
  if (const tracked_request* other = find_conflict())
    return fail(error_kind::busy, "{} bytes at {:#x} are in use by a {} of {} bytes at {:#x}",
                range_.length, range_.offset, to_string(other->type_), other->range_.length,
                other->range_.offset);
  return {};
}

} // namespace bgfs
