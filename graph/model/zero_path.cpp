// SPDX-License-Identifier: MIT
// How zero writes reach the driver, or become writes of zeroes.
#include "graph/io/buffer_pool.h"
#include "graph/model/graph.h"

namespace bgfs {

bool node::can_write_zeroes() const {
  if (zeroable_ != nullptr)
    return true;
  const edge* below = is_filter() ? filtered_child() : nullptr;
  return below != nullptr && below->child().can_write_zeroes();
}

// Who must not fall back to writing a buffer is refused before anything was done. A filter that
// leaves zero writes to its child lets that decide.
result<> node::check_no_fallback(write_flags flags) const {
  if ((flags & write_flag::no_fallback) == 0)
    return {};
  if (zeroable_ != nullptr && (zeroable_->supported_zero_flags() & write_flag::no_fallback) != 0)
    return {};
  const edge* below = zeroable_ == nullptr && is_filter() ? filtered_child() : nullptr;
  if (below != nullptr)
    return below->child().check_no_fallback(flags);
  return fail(error_kind::unsupported, "driver '{}' cannot write zeroes without writing a buffer",
              type_->name);
}

task<void> node::write_zeroes(byte_range range, write_flags flags) {
  co_await check_write(operation::zero, range, flags);
  if (range.is_empty())
    co_return;
  flags = usable_flags(flags);
  co_await check_no_fallback(flags);
  tracked_request request(requests_, request_type::write, range, owner_->home().now());
  co_await prepare_write(request, flags);
  if (requests_.has_serialising()) {
    co_await request.wait_for_conflicts();
    co_await check_write_range(range, "zero"); // it may have been shortened meanwhile
  }
  write_begins(range);
  result<> outcome = co_await as_result(zero_untracked(request, range, flags));
  forget_status(range.widened_to(limits_.request_alignment));
  write_ended(request, operation::zero, outcome);
  mark_dirty(range, flags);
  co_await std::move(outcome);
}

// Head and tail below the request alignment are read, modified and written; the rest goes down as
// zero writes.
task<void> node::zero_untracked(tracked_request& request, byte_range range, write_flags flags) {
  const u64 unit = limits_.request_alignment;
  const u64 begin = align_up(range.offset, unit);
  const u64 end = align_down(range.end(), unit);
  const bool is_whole = range.is_aligned_to(unit);
  bool needs_flush = false;
  const auto part = [&](u64 from, u64 to) {
    return zero_piece{request, byte_range::between(from, to), flags, needs_flush};
  };
  if (begin >= end && !is_whole) {
    co_await zero_by_writing(part(range.offset, range.end()));
  } else {
    if (begin > range.offset)
      co_await zero_by_writing(part(range.offset, begin));
    co_await zero_blocks(part(begin, end));
    if (end < range.end())
      co_await zero_by_writing(part(end, range.end()));
  }
  if (needs_flush)
    co_await flush_writes();
}

// Not a coroutine: the usual case takes no frame of its own.
task<void> node::zero_blocks(zero_piece what) {
  return debuggable_ == nullptr ? zero_pieces(what) : zero_told(what);
}

// A run of whole blocks: split so that the driver gets pieces on its zero alignment where possible.
task<void> node::zero_pieces(zero_piece what) {
  if (zeroable_ == nullptr) {
    const edge* below = is_filter() ? filtered_child() : nullptr;
    requests_.enter_driver(what.request);
    if (below != nullptr) {
      co_await below->write_zeroes(what.range, what.flags & write_flag::for_drivers);
    } else {
      co_await zero_by_writing(what);
    }
    co_return;
  }
  const piece_rule rule = bgfs::zero_pieces(limits_);
  byte_range left = what.range;
  while (!left.is_empty()) {
    const byte_range piece{left.offset, rule.length_of_first(left)};
    co_await zero_driver({what.request, piece, what.flags, what.needs_flush});
    left = byte_range::between(piece.end(), left.end());
  }
}

task<void> node::zero_driver(zero_piece what) {
  const write_flags supported = zeroable_->supported_zero_flags();
  requests_.enter_driver(what.request);
  result<> done = co_await as_result(zeroable_->write_zeroes(
      what.range, static_cast<write_flags>(what.flags & supported & write_flag::for_drivers)));
  if (done) {
    if ((what.flags & ~supported & write_flag::durable) != 0)
      what.needs_flush = true;
    co_return;
  }
  // Some say that a piece is wrong where they mean that it is too small for them.
  const bool is_small = limits_.write_zeroes_alignment != 0 &&
                        !what.range.is_aligned_to(limits_.write_zeroes_alignment);
  const bool is_refused = done.error().kind() == error_kind::unsupported ||
                          (is_small && done.error().kind() == error_kind::invalid_argument);
  if (!is_refused || (what.flags & write_flag::no_fallback) != 0)
    co_await fail(std::move(done).error());
  co_await zero_by_writing(what);
}

// Flushes nothing itself: a durable one asks its caller to.
task<void> node::zero_by_writing(zero_piece what) {
  const u64 unit = limits_.request_alignment;
  if ((what.flags & write_flag::durable) != 0)
    what.needs_flush = true;
  const auto flags = static_cast<write_flags>(what.flags & write_flag::unchanged);
  auto zeroes = owner_->home().buffers().zeroes();
  buffer large; // where one block is more than the pool has zeroes for
  if (zeroes.size() < unit) {
    large = owner_->home().buffers().allocate_zeroed(unit);
    zeroes = large.bytes();
  }
  const u64 step = align_down(zeroes.size(), unit);
  byte_range left = what.range;
  while (!left.is_empty()) {
    const byte_range piece{left.offset, std::min<u64>(left.length, step - left.offset % step)};
    const write_piece written{what.request, piece.offset, zeroes.first(piece.length), flags};
    task<void> work = piece.is_aligned_to(unit) ? write_aligned(written) : write_unaligned(written);
    co_await std::move(work);
    left = byte_range::between(piece.end(), left.end());
  }
}

} // namespace bgfs
