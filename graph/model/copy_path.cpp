// SPDX-License-Identifier: MIT
// Copies that the host makes (copy_file_range): the way of a read down to a file, and from there
// the way of a write down to another. Both requests are tracked at each node, as reads and writes
// are.
#include "graph/io/spawn.h"
#include "graph/model/graph.h"

namespace bgfs {

namespace {

std::unexpected<error> must_be_read(const node& n) {
  return fail(error_kind::unsupported, "{} has to be read to be copied", n.describe());
}

} // namespace

task<void> node::copy_to(byte_range range, const edge& to, u64 to_offset) {
  co_await check_read(range);
  tracked_request request(requests_, request_type::read, range, owner_->home().now());
  if (requests_.has_serialising()) {
    co_await request.wait_for_conflicts();
    co_await check_range(range, "read"); // it may have been shortened meanwhile
  }
  if (type_->kind == driver_kind::protocol) {
    if (range.end() > length_) // zeroes up to the end of a block
      co_await must_be_read(*this);
    co_await to.copy_from({driver_.get(), range}, to_offset);
    account(operation::read, range.length, request.since(), {});
    co_return;
  }
  if (mappable_ == nullptr ? readable_ != nullptr || !is_filter() : is_read_directly())
    co_await must_be_read(*this); // somebody wants to see what is read
  co_await copy_mapped(range, to, to_offset);
  account(operation::read, range.length, request.since(), {});
}

task<void> node::copy_mapped(byte_range range, const edge& to, u64 to_offset) {
  while (!range.is_empty()) {
    const extent e = co_await map(range);
    const u64 length = e.kind == extent_kind::end ? range.length : std::min(e.length, range.length);
    BGFS_ASSERT(length > 0, "M5: a mapping makes progress");
    switch (e.kind) {
    case extent_kind::data:
      co_await e.where->child().copy_to({e.offset, length}, to, to_offset);
      break;
    case extent_kind::zero:
    case extent_kind::end:
      co_await to.write_zeroes({to_offset, length}, write_flag::may_unmap);
      break;
    case extent_kind::unallocated:
      co_await copy_backing({range.offset, length}, to, to_offset);
      break;
    case extent_kind::encoded:
      co_await must_be_read(*this);
    }
    range = byte_range::between(range.offset + length, range.end());
    to_offset += length;
  }
}

// What this layer does not hold: the backing's bytes, and zeroes past its end.
task<void> node::copy_backing(byte_range range, const edge& to, u64 to_offset) {
  const byte_range below = range.intersection({0, backing_ != nullptr ? backing_->length() : 0});
  if (!below.is_empty())
    co_await backing_->child().copy_to(below, to, to_offset);
  const u64 rest = range.length - below.length;
  if (rest > 0)
    co_await to.write_zeroes({to_offset + below.length, rest}, write_flag::may_unmap);
}

task<void> node::copy_from(bytes_of_file source, u64 to_offset) {
  const byte_range range{to_offset, source.range.length};
  co_await check_write(operation::write, range, 0);
  const bool passes_by = is_filter() && writable_ == nullptr && filtered_child() != nullptr;
  if ((copyable_ == nullptr && !passes_by) || generic_.detect_zeroes != detect_zeroes_mode::off ||
      !range.is_aligned_to(limits_.request_alignment))
    co_await fail(error_kind::unsupported, "{} takes bytes only from a buffer", describe());
  tracked_request request(requests_, request_type::write, range, owner_->home().now());
  co_await prepare_write(request, 0);
  if (requests_.has_serialising()) {
    co_await request.wait_for_conflicts();
    co_await check_write_range(range, "write"); // it may have been shortened meanwhile
  }
  write_begins(range);
  result<> outcome = co_await as_result(copy_into_driver(request, source));
  if (outcome || outcome.error().kind() != error_kind::unsupported)
    write_ended(request, operation::write, outcome);
  else
    write_generation_++; // it will be written in another way
  mark_dirty(range);
  co_await std::move(outcome);
}

// Awaited where it is called: the driver may look for its request as soon as it runs.
task<void> node::copy_into_driver(tracked_request& request, bytes_of_file source) {
  requests_.enter_driver(request);
  if (copyable_ != nullptr)
    return copyable_->copy_from(source, request.range().offset);
  return filtered_child()->copy_from(source, request.range().offset);
}

} // namespace bgfs
