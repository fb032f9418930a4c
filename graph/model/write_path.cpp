// SPDX-License-Identifier: MIT
// How writes reach the driver, with what it lacks supplied here.
#include "graph/base/is_zero.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/spawn.h"
#include "graph/model/graph.h"

#include <cstring>

namespace bgfs {

result<> node::check_write(operation kind, byte_range range, write_flags flags) {
  if (limits_.has_variable_length)
    follow_variable_length();
  result<> ok = check_writable();
  if (ok)
    ok = check_write_range(range, kind == operation::zero ? "zero" : "write");
  if (ok && kind == operation::write && range.length > request_length_max)
    ok = fail(error_kind::out_of_range, "cannot write {} bytes at once; the most is {}",
              range.length, request_length_max);
  if (ok && (flags & write_flag::no_wait) != 0) {
    if ((flags & write_flag::serialising) == 0)
      ok = fail(error_kind::invalid_argument, "only a serialising write can do without waiting");
    else if (!range.is_aligned_to(limits_.request_alignment))
      ok = fail(error_kind::invalid_argument,
                "a write of {} bytes at {:#x} cannot do without waiting: {} takes blocks of {}",
                range.length, range.offset, describe(), limits_.request_alignment);
  }
  if (!ok)
    statistics_.of(kind).invalid++;
  return ok;
}

// Those that the options of this node let through.
write_flags node::usable_flags(write_flags flags) const {
  if (generic_.cache_no_flush)
    flags &= static_cast<write_flags>(~write_flag::durable);
  if (generic_.discard == discard_mode::ignore)
    flags &= static_cast<write_flags>(~write_flag::may_unmap);
  return flags;
}

// What the request serialises over. error_kind::busy for one that would have to wait and must not.
result<> node::prepare_write(tracked_request& request, write_flags flags) {
  const u64 unit = limits_.request_alignment;
  const byte_range range = request.range();
  if ((flags & write_flag::serialising) != 0)
    request.make_serialising(copy_unit());
  if (!range.is_aligned_to(unit)) {
    request.make_serialising(unit);
    // The padding is cut off again, and with it what somebody else has written behind it.
    const byte_range blocks = range.widened_to(unit);
    if (blocks.end() > length_ && type_->kind == driver_kind::protocol)
      request.serialise_over(byte_range::between(blocks.offset, device_length_max));
  }
  if ((flags & write_flag::no_wait) != 0)
    return request.check_conflicts();
  return {};
}

task<void> node::write(u64 offset, std::span<const std::byte> bytes, write_flags flags) {
  const byte_range range{offset, bytes.size()};
  co_await check_write(operation::write, range, flags);
  if (range.is_empty())
    co_return;
  flags = usable_flags(flags);
  const bool is_compressed = (flags & write_flag::compressed) != 0;
  if (generic_.detect_zeroes != detect_zeroes_mode::off && !is_compressed && can_write_zeroes() &&
      is_zero(bytes)) {
    if (generic_.detect_zeroes == detect_zeroes_mode::unmap)
      flags |= write_flag::may_unmap;
    co_await write_zeroes(range, flags);
    co_return;
  }
  tracked_request request(requests_, request_type::write, range, owner_->home().now());
  co_await prepare_write(request, flags);
  if (requests_.has_serialising()) {
    co_await request.wait_for_conflicts();
    co_await check_write_range(range, "write"); // it may have been shortened meanwhile
  }
  write_begins(range);
  const write_piece whole{request, offset, bytes, flags};
  task<void> work = is_compressed                                    ? write_compressed(whole)
                    : range.is_aligned_to(limits_.request_alignment) ? write_aligned(whole)
                                                                     : write_unaligned(whole);
  result<> outcome = co_await as_result(std::move(work));
  write_ended(request, operation::write, outcome);
  mark_dirty(range, flags);
  co_await std::move(outcome);
}

task<void> node::write_compressed(write_piece what) {
  const edge* below = filtered_child();
  if (compressible_ == nullptr && writable_ == nullptr && below != nullptr && is_filter()) {
    requests_.enter_driver(what.request);
    co_await below->write(what.offset, what.bytes, what.flags);
    co_return;
  }
  if (compressible_ == nullptr)
    co_await fail(error_kind::unsupported, "{} cannot write compressed clusters", describe());
  if (!what.range().is_aligned_to(limits_.request_alignment))
    co_await fail(error_kind::invalid_argument,
                  "{} bytes at {:#x} of {} cannot be compressed: they are no whole blocks of {}",
                  what.bytes.size(), what.offset, describe(), limits_.request_alignment);
  requests_.enter_driver(what.request);
  co_await compressible_->write_compressed(what.offset, what.bytes);
  if ((what.flags & write_flag::durable) != 0)
    co_await flush_writes();
}

// Read, modify, write. The caller's request serialises over the widened range, so nobody changes
// the bytes around ours between the read and the write. What would not fit a bounce buffer goes in
// three parts: only the blocks at both ends need one.
task<void> node::write_unaligned(write_piece what) {
  const u64 unit = limits_.request_alignment;
  const byte_range range = what.range();
  const u64 begin = align_up(range.offset, unit);
  const u64 end = align_down(range.end(), unit);
  if (range.length <= bounce_length_max || begin >= end) {
    co_await write_merged(what);
    co_return;
  }
  const auto part = [&](u64 from, u64 to) {
    const auto bytes = what.bytes.subspan(from - range.offset, to - from);
    const auto flags = static_cast<write_flags>(what.flags & ~write_flag::durable);
    return write_piece{what.request, from, bytes, flags};
  };
  if (begin > range.offset)
    co_await write_merged(part(range.offset, begin));
  co_await write_aligned(part(begin, end));
  if (end < range.end())
    co_await write_merged(part(end, range.end()));
  if ((what.flags & write_flag::durable) != 0)
    co_await flush_writes();
}

task<void> node::write_merged(write_piece what) {
  const u64 unit = limits_.request_alignment;
  const byte_range range = what.range();
  const byte_range blocks = range.widened_to(unit);
  const buffer bounce = owner_->home().buffers().allocate(blocks.length);
  const u64 head = range.offset - blocks.offset;
  const u64 tail = blocks.end() - range.end();
  co_await read_around({blocks, head != 0, tail != 0}, bounce.bytes());
  std::memcpy(bounce.data() + head, what.bytes.data(), what.bytes.size());
  co_await write_aligned({what.request, blocks.offset, bounce.bytes(), what.flags});
  // Not to be interrupted: the padding would stay.
  co_await shielded(cut_padding(blocks.end(), range.end()));
}

// The first block, the last, or both at once where nothing lies between.
task<void> node::read_around(merged_block what, std::span<std::byte> into) {
  using enum debug_event;
  const u64 unit = limits_.request_alignment;
  const bool is_one_read =
      what.has_head && what.has_tail ? what.blocks.length <= 2 * unit : what.blocks.length == unit;
  if (is_one_read) {
    if (debuggable_ != nullptr && what.has_head)
      co_await debuggable_->happened(pwritev_rmw_head);
    if (debuggable_ != nullptr && what.has_tail)
      co_await debuggable_->happened(pwritev_rmw_tail);
    co_await read_aligned(what.blocks.offset, into);
    if (debuggable_ != nullptr && what.has_head)
      co_await debuggable_->happened(pwritev_rmw_after_head);
    if (debuggable_ != nullptr && what.has_tail)
      co_await debuggable_->happened(pwritev_rmw_after_tail);
    co_return;
  }
  if (what.has_head)
    co_await read_end({what.blocks.offset, unit}, pwritev_rmw_head, pwritev_rmw_after_head,
                      into.first(unit));
  if (what.has_tail)
    co_await read_end({what.blocks.end() - unit, unit}, pwritev_rmw_tail, pwritev_rmw_after_tail,
                      into.last(unit));
}

task<void> node::read_end(byte_range block, debug_event before, debug_event after,
                          std::span<std::byte> into) {
  if (debuggable_ != nullptr)
    co_await debuggable_->happened(before);
  co_await read_aligned(block.offset, into);
  if (debuggable_ != nullptr)
    co_await debuggable_->happened(after);
}

// A file whose length is no multiple of the alignment (O_DIRECT) has grown by the padding. Nobody
// else changes its length meanwhile: see prepare_write.
task<void> node::cut_padding(u64 padded_end, u64 wanted_end) {
  const u64 end = std::max(wanted_end, length_);
  if (padded_end <= end || resizable_ == nullptr || type_->kind != driver_kind::protocol)
    co_return;
  co_await resizable_->truncate(end, {});
}

// Not a coroutine: the usual case takes no frame of its own.
task<void> node::write_aligned(write_piece what) {
  return debuggable_ == nullptr ? write_pieces(what) : write_told(what);
}

// Durable pieces are durable each, or all of them are flushed after the last.
task<void> node::write_pieces(write_piece what) {
  const write_flags supported = writable_ != nullptr ? writable_->supported_write_flags()
                                                     : write_flag::durable | write_flag::unchanged;
  const bool needs_flush = (what.flags & ~supported & write_flag::durable) != 0;
  what.flags &= supported & write_flag::for_drivers;
  const u64 step = transfer_step(limits_);
  while (!what.bytes.empty()) {
    const auto part = what.bytes.first(std::min<u64>(what.bytes.size(), step));
    co_await write_driver({what.request, what.offset, part, what.flags});
    what.bytes = what.bytes.subspan(part.size());
    what.offset += part.size();
  }
  if (needs_flush)
    co_await flush_writes();
}

namespace {
task<void> cannot_write(const node& n) {
  co_await fail(error_kind::unsupported, "driver '{}' cannot write", n.type().name);
}
} // namespace

// Awaited where it is called: the driver may look for its request as soon as it runs.
task<void> node::write_driver(write_piece what) {
  requests_.enter_driver(what.request);
  if (writable_ != nullptr)
    return writable_->write(what.offset, what.bytes, what.flags);
  const edge* below = filtered_child();
  if (below == nullptr || !is_filter())
    return cannot_write(*this);
  return below->write(what.offset, what.bytes, what.flags);
}

// For durable writes: a flush that must not think that nothing was written.
task<void> node::flush_writes() {
  write_generation_++;
  return flush();
}

} // namespace bgfs
