// SPDX-License-Identifier: MIT
// How discards reach the driver. They are advice: where the node's options or its driver do not
// want them, they succeed without doing anything.
#include "graph/model/graph.h"

namespace bgfs {

task<void> node::discard(byte_range range) {
  if (limits_.has_variable_length)
    follow_variable_length();
  result<> ok = check_writable();
  if (ok)
    ok = check_range(range, "discard");
  if (!ok)
    statistics_.of(operation::discard).invalid++;
  co_await std::move(ok);
  const bool can = discardable_ != nullptr || (is_filter() && filtered_child() != nullptr);
  if (range.is_empty() || generic_.discard == discard_mode::ignore || !can)
    co_return;
  tracked_request request(requests_, request_type::discard, range, owner_->home().now());
  if (requests_.has_serialising()) {
    co_await request.wait_for_conflicts();
    co_await check_range(range, "discard"); // it may have been shortened meanwhile
  }
  result<> outcome = co_await as_result(discard_untracked(request, range));
  forget_status(range);
  write_ended(request, operation::discard, outcome);
  mark_dirty(range);
  co_await std::move(outcome);
}

// Bytes at both ends that are no whole block keep their content.
task<void> node::discard_untracked(tracked_request& request, byte_range range) {
  if (discardable_ == nullptr) {
    requests_.enter_driver(request);
    co_await filtered_child()->discard(range);
    co_return;
  }
  const u64 unit = limits_.request_alignment;
  const u64 begin = align_up(range.offset, unit);
  const u64 end = range.end() == length_ ? range.end() : align_down(range.end(), unit);
  if (begin >= end)
    co_return;
  const piece_rule rule = discard_pieces(limits_);
  byte_range left = byte_range::between(begin, end);
  while (!left.is_empty()) {
    const byte_range piece{left.offset, rule.length_of_first(left)};
    co_await discard_piece(request, piece);
    left = byte_range::between(piece.end(), left.end());
  }
}

// A piece that the driver cannot give back stays, and the others go all the same.
task<void> node::discard_piece(tracked_request& request, byte_range range) {
  requests_.enter_driver(request);
  result<> done = co_await as_result(discardable_->discard(range));
  if (!done && done.error().kind() != error_kind::unsupported)
    co_await fail(std::move(done).error());
}

} // namespace bgfs
