// SPDX-License-Identifier: MIT
// Changing the length of a node, and telling everybody above.
#include "graph/model/graph.h"

namespace bgfs {

task<void> node::truncate(u64 length, truncate_options options) {
  co_await check_writable();
  co_await check_operation(operation::resize);
  if (length > device_length_max)
    co_await fail(error_kind::out_of_range, "{} cannot be {} bytes long; the most is {}",
                  describe(), length, device_length_max);
  if (length < length_ && options.prealloc != preallocation::off)
    co_await fail(error_kind::invalid_argument,
                  "preallocation is only for growing; {} would shrink from {} to {} bytes",
                  describe(), length_, length);
  co_await truncate_tracked(length, options);
}

task<void> node::truncate_tracked(u64 length, truncate_options options) {
  const byte_range touched =
      byte_range::between(std::min(length, length_), std::max(length, length_));
  tracked_request request(requests_, request_type::truncate, touched);
  // Nobody reads or writes the part that comes or goes meanwhile.
  request.make_serialising(1);
  co_await request.wait_for_conflicts();
  // A longer backing file would show through where this node was too short to hide it.
  if (backing_ != nullptr && length > length_ && backing_->length() > length_)
    options.must_read_zero = true;
  write_generation_++;
  if (resizable_ != nullptr) {
    co_await resizable_->truncate(length, options);
  } else if (const edge* below = filtered_child(); below != nullptr && is_filter()) {
    co_await below->truncate(length, options);
  } else {
    co_await fail(error_kind::unsupported, "driver '{}' cannot change the length of {}",
                  type_->name, describe());
  }
  length_changed();
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
  owner_.tell_resized(*this);
}

} // namespace bgfs
