// SPDX-License-Identifier: MIT
// Copy on read: what this layer does not hold is read from below and stored here, in whole
// clusters. It changes nothing that anybody reads, which is why writing unchanged is enough.
#include "graph/base/is_zero.h"
#include "graph/io/buffer_pool.h"
#include "graph/model/graph.h"

#include <cstring>

namespace bgfs {

task<void> node::prefetch(byte_range range) {
  co_await check_read(range);
  if (prefetcher_ != nullptr) {
    tracked_request request(requests_, request_type::read, range, owner_->home().now());
    if (requests_.has_serialising()) {
      co_await request.wait_for_conflicts();
      co_await check_range(range, "read");
    }
    co_await prefetcher_->prefetch(range);
  } else if (const edge* below = filtered_child(); below != nullptr && is_filter()) {
    co_await below->prefetch(range);
  } else {
    co_await fail(error_kind::unsupported,
                  "nothing in front of {} copies on read; put a 'copy-on-read' node there",
                  describe());
  }
}

// Serialises over the clusters it touches: a write between our reading and our storing would be
// undone, and two that store the same cluster would take it twice.
task<void> node::copy_up(byte_range range, std::span<std::byte> into) {
  BGFS_ASSERT(into.empty() || into.size() == range.length);
  co_await check_read(range);
  if (range.is_empty())
    co_return;
  tracked_request request(requests_, request_type::read, range, owner_->home().now());
  request.make_serialising(copy_unit());
  co_await request.wait_for_conflicts();
  co_await check_range(range, "read"); // it may have been shortened meanwhile
  result<> outcome = co_await as_result(copy_up_untracked(request, range, into));
  write_generation_++; // what was stored is not durable yet
  account(operation::read, range.length, request.since(), outcome);
  co_await std::move(outcome);
}

task<void> node::copy_up_untracked(tracked_request& request, byte_range range,
                                   std::span<std::byte> into) {
  const u64 step = align_down(bounce_length_max, copy_unit());
  byte_range left = range.widened_to(copy_unit());
  left.length = std::min(left.length, length_ - left.offset);
  while (!left.is_empty()) {
    byte_range piece{left.offset, std::min(left.length, std::max(step, copy_unit()))};
    // If it cannot be told, it is read and stored: the reading will say what is wrong.
    const result<block_status> known = co_await as_result(status(piece, false));
    const bool is_here = known && known->is_allocated;
    if (known && known->length > 0)
      piece.length = std::min(piece.length, known->length);
    const byte_range wanted = piece.intersection(range);
    const auto out = into.empty() || wanted.is_empty()
                         ? std::span<std::byte>()
                         : into.subspan(wanted.offset - range.offset, wanted.length);
    if (!is_here) {
      const buffer bounce =
          owner_->home().buffers().allocate(align_up(piece.length, limits_.request_alignment));
      co_await copy_up_piece(request, piece, bounce.bytes());
      if (!out.empty())
        std::memcpy(out.data(), bounce.data() + (wanted.offset - piece.offset), out.size());
    } else if (!out.empty()) {
      task<void> work = wanted.is_aligned_to(limits_.request_alignment)
                            ? read_aligned(wanted.offset, out)
                            : read_unaligned(wanted.offset, out);
      co_await std::move(work);
    }
    left = byte_range::between(piece.end(), left.end());
  }
}

// Nothing is stored in an image that takes no more writes; it is read all the same.
task<void> node::copy_up_piece(tracked_request& request, byte_range piece,
                               std::span<std::byte> bytes) {
  co_await read_aligned(piece.offset, bytes);
  if (is_broken_)
    co_return;
  if (debuggable_ != nullptr)
    co_await debuggable_->happened(debug_event::cor_write);
  if (can_write_zeroes() && is_zero(bytes)) {
    co_await zero_untracked(request, piece, write_flag::unchanged);
  } else {
    co_await write_pieces({request, piece.offset, bytes, write_flag::unchanged});
  }
}

} // namespace bgfs
