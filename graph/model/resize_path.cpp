// SPDX-License-Identifier: MIT
// Changing the length of a node, and telling everybody above.
#include "graph/model/graph.h"

namespace bgfs {

// Nothing at or past the shorter of both lengths runs beside it: neither what is read or written
// there, nor what would lengthen the node, nor another truncate.
task<void> node::truncate(u64 length, truncate_options options) {
  co_await check_writable();
  if (!options.may_be_backing)
    co_await check_operation(node_operation::resize);
  if (length > device_length_max)
    co_await fail(error_kind::out_of_range, "{} cannot be {} bytes long; the most is {}",
                  describe(), length, device_length_max);
  const u64 added = length > length_ ? length - length_ : 0;
  tracked_request request(requests_, request_type::truncate, {length - added, added},
                          owner_->home().now());
  u64 touched = 0;
  do {
    touched = std::min(length, length_);
    request.serialise_over(byte_range::between(touched, device_length_max + alignment_max));
    co_await request.wait_for_conflicts();
  } while (touched > std::min(length, length_)); // it was shortened meanwhile
  co_await check_bitmaps_follow(length);
  if (length < length_ && options.prealloc != preallocation::off)
    co_await fail(error_kind::invalid_argument,
                  "preallocation is only for growing; {} would shrink from {} to {} bytes",
                  describe(), length_, length);
  result<> outcome = co_await as_result(truncate_driver(request, length, options));
  // Even if it failed it may have gone some of the way.
  write_generation_++;
  forget_status({0, ~u64{0}});
  length_changed();
  if (!outcome)
    mark_dirty(byte_range::between(std::min(touched, length_), length_));
  co_await std::move(outcome);
}

task<void> node::truncate_driver(tracked_request& request, u64 length, truncate_options options) {
  // A longer backing file would show through where this node was too short to hide it.
  if (backing_ != nullptr && length > length_ && backing_->length() > length_ &&
      !options.is_new_overlay)
    options.must_read_zero = true;
  requests_.enter_driver(request);
  if (resizable_ != nullptr) {
    co_await resizable_->truncate(length, options);
  } else if (const edge* below = filtered_child(); below != nullptr && is_filter()) {
    co_await below->truncate(length, options);
  } else {
    co_await fail(error_kind::unsupported, "driver '{}' cannot change the length of {}",
                  type_->name, describe());
  }
}

void node::length_changed() {
  const u64 before = length_;
  refresh_length();
  refresh_limits();
  if (length_ == before)
    return;
  for (edge* e : parents_) {
    if (e->parent() == nullptr)
      continue;
    // Filters and raw follow the length of what they pass through; formats keep their own.
    if (e->has_role(role::filtered))
      e->parent()->length_changed();
  }
  owner_->tell_resized(*this);
}

// Nodes over media that change by themselves: their length is asked for with each request.
void node::follow_variable_length() {
  if (is_suspended_)
    return;
  if (const edge* below = filtered_child())
    below->child().follow_variable_length();
  if (driver_->length() != length_)
    length_changed();
}

} // namespace bgfs
