// SPDX-License-Identifier: MIT
// How writes, zero writes and discards reach the driver, with what it lacks supplied here.
#include "graph/io/buffer_pool.h"
#include "graph/model/graph.h"

#include <cstring>

namespace bgfs {
namespace {

// A finished write, even a failed one, may have changed the medium: the next flush is not free.
struct write_mark {
  u64& generation;
  ~write_mark() { generation++; }
};

} // namespace

task<void> node::write(u64 offset, std::span<const std::byte> bytes, write_flags flags) {
  const byte_range range{offset, bytes.size()};
  co_await check_writable();
  co_await check_write_range(range, "write");
  if ((flags & write_flag::compressed) != 0)
    co_await fail(error_kind::unsupported, "{} cannot write compressed clusters", describe());
  if (range.is_empty())
    co_return;
  if (generic_.detect_zeroes != detect_zeroes_mode::off && zeroable_ != nullptr && is_zero(bytes)) {
    if (generic_.detect_zeroes == detect_zeroes_mode::unmap)
      flags |= write_flag::may_unmap;
    co_await write_zeroes(range, flags);
    co_return;
  }
  statistics_.writes++;
  statistics_.write_bytes += range.length;
  tracked_request request(requests_, request_type::write, range);
  const bool is_whole = range.is_aligned_to(limits_.request_alignment);
  if (!is_whole)
    request.make_serialising(limits_.request_alignment);
  if (requests_.has_serialising())
    co_await request.wait_for_conflicts();
  const write_mark mark{write_generation_};
  if (is_whole) {
    co_await write_aligned(offset, bytes, flags);
  } else {
    co_await write_unaligned(offset, bytes, flags);
  }
  grown_to(range.end());
}

// Read, modify, write. The caller's request serialises over the widened range, so nobody changes
// the bytes around ours between the read and the write.
task<void> node::write_unaligned(u64 offset, std::span<const std::byte> bytes, write_flags flags) {
  const u64 unit = limits_.request_alignment;
  const byte_range range{offset, bytes.size()};
  const byte_range blocks = range.widened_to(unit);
  const buffer bounce = owner_.home().buffers().allocate(blocks.length);
  const u64 head = range.offset - blocks.offset;
  const u64 tail = blocks.end() - range.end();
  if (head != 0 || blocks.length == unit)
    co_await read_aligned(blocks.offset, bounce.bytes().first(unit));
  if (tail != 0 && blocks.length > unit)
    co_await read_aligned(blocks.end() - unit, bounce.bytes().last(unit));
  std::memcpy(bounce.data() + head, bytes.data(), bytes.size());
  co_await write_aligned(blocks.offset, bounce.bytes(), flags);
  co_await cut_padding(blocks.end(), range.end());
}

// A file whose length is no multiple of the alignment (O_DIRECT) has grown by the padding.
task<void> node::cut_padding(u64 padded_end, u64 wanted_end) {
  const u64 end = std::max(wanted_end, length_);
  if (padded_end <= end || resizable_ == nullptr || type_->kind != driver_kind::protocol)
    co_return;
  co_await resizable_->truncate(end, {});
}

void node::grown_to(u64 end) {
  statistics_.write_highest_offset = std::max(statistics_.write_highest_offset, end);
  if (end > length_)
    length_changed();
}

task<void> node::write_aligned(u64 offset, std::span<const std::byte> bytes, write_flags flags) {
  const u64 limit = limits_.max_transfer != 0 ? limits_.max_transfer : request_length_max;
  const u64 step =
      std::max<u64>(align_down(limit, limits_.request_alignment), limits_.request_alignment);
  while (bytes.size() > step) {
    co_await write_driver(offset, bytes.first(step), flags & ~write_flag::durable);
    bytes = bytes.subspan(step);
    offset += step;
  }
  co_await write_driver(offset, bytes, flags);
}

task<void> node::write_driver(u64 offset, std::span<const std::byte> bytes, write_flags flags) {
  const bool wants_durable = (flags & write_flag::durable) != 0 && !generic_.cache_no_flush;
  if (writable_ == nullptr) {
    const edge* below = filtered_child();
    if (below == nullptr || !is_filter())
      co_await fail(error_kind::unsupported, "driver '{}' cannot write", type_->name);
    co_await below->write(offset, bytes, flags);
    co_return;
  }
  const write_flags supported = writable_->supported_write_flags();
  co_await writable_->write(offset, bytes, flags & supported);
  if (wants_durable && (supported & write_flag::durable) == 0) {
    write_generation_++; // the flush below must not think that nothing was written
    co_await flush();
  }
}

task<void> node::write_zeroes(byte_range range, write_flags flags) {
  co_await check_writable();
  co_await check_write_range(range, "zero");
  if (range.is_empty())
    co_return;
  if (generic_.discard == discard_mode::ignore)
    flags &= static_cast<write_flags>(~write_flag::may_unmap);
  statistics_.zero_writes++;
  tracked_request request(requests_, request_type::write, range);
  if (!range.is_aligned_to(limits_.request_alignment))
    request.make_serialising(limits_.request_alignment);
  if (requests_.has_serialising())
    co_await request.wait_for_conflicts();
  const write_mark mark{write_generation_};
  co_await zero_untracked(range, flags);
  grown_to(range.end());
}

// Head and tail below the request alignment are read, modified and written; the rest goes down as
// zero writes.
task<void> node::zero_untracked(byte_range range, write_flags flags) {
  const u64 unit = limits_.request_alignment;
  const write_flags piece_flags = flags & ~write_flag::durable;
  const u64 begin = align_up(range.offset, unit);
  const u64 end = align_down(range.end(), unit);
  if (begin >= end && !range.is_aligned_to(unit)) {
    co_await zero_by_writing(range, piece_flags);
  } else {
    if (begin > range.offset)
      co_await zero_by_writing(byte_range::between(range.offset, begin), piece_flags);
    co_await zero_piece(byte_range::between(begin, end), piece_flags);
    if (end < range.end())
      co_await zero_by_writing(byte_range::between(end, range.end()), piece_flags);
  }
  if ((flags & write_flag::durable) != 0) {
    write_generation_++;
    co_await flush();
  }
}

// A run of whole blocks: split so that the driver gets pieces on its zero alignment where possible.
task<void> node::zero_piece(byte_range range, write_flags flags) {
  if (zeroable_ == nullptr) {
    const edge* below = is_filter() ? filtered_child() : nullptr;
    if (below != nullptr) {
      co_await below->write_zeroes(range, flags);
    } else if ((flags & write_flag::no_fallback) != 0) {
      co_await fail(error_kind::unsupported, "driver '{}' cannot write zeroes", type_->name);
    } else {
      co_await zero_by_writing(range, flags);
    }
    co_return;
  }
  const u64 unit = std::max<u64>(limits_.write_zeroes_alignment, limits_.request_alignment);
  const u64 limit = limits_.max_write_zeroes != 0 ? limits_.max_write_zeroes : device_length_max;
  const u64 step = std::max(align_down(limit, unit), unit);
  const write_flags supported = zeroable_->supported_zero_flags();
  while (!range.is_empty()) {
    u64 length = std::min(range.length, step);
    if (range.offset % unit != 0) {
      length = std::min(length, unit - range.offset % unit); // the head
    } else if (length > unit) {
      length = align_down(length, unit); // the middle; the tail comes next
    }
    const byte_range piece{range.offset, length};
    result<> done = co_await as_result(zeroable_->write_zeroes(piece, flags & supported));
    if (!done) {
      const bool may_fall_back =
          done.error().kind() == error_kind::unsupported && (flags & write_flag::no_fallback) == 0;
      if (!may_fall_back)
        co_await fail(std::move(done).error());
      co_await zero_by_writing(piece, flags);
    }
    range = byte_range::between(piece.end(), range.end());
  }
}

task<void> node::zero_by_writing(byte_range range, write_flags flags) {
  const auto zeroes = owner_.home().buffers().zeroes();
  const u64 unit = limits_.request_alignment;
  while (!range.is_empty()) {
    const u64 step = zeroes.size() >= unit ? align_down(zeroes.size(), unit) : zeroes.size();
    const byte_range piece{range.offset, std::min<u64>(range.length, step - range.offset % step)};
    if (piece.is_aligned_to(unit)) {
      co_await write_aligned(piece.offset, zeroes.first(piece.length), flags);
    } else {
      co_await write_unaligned(piece.offset, zeroes.first(piece.length), flags);
    }
    range = byte_range::between(piece.end(), range.end());
  }
}

task<void> node::discard(byte_range range) {
  co_await check_writable();
  co_await check_range(range, "discard");
  const edge* below = is_filter() ? filtered_child() : nullptr;
  if (range.is_empty() || generic_.discard == discard_mode::ignore ||
      (discardable_ == nullptr && below == nullptr))
    co_return;
  statistics_.discards++;
  tracked_request request(requests_, request_type::discard, range);
  if (requests_.has_serialising())
    co_await request.wait_for_conflicts();
  const write_mark mark{write_generation_};
  if (discardable_ == nullptr) {
    co_await below->discard(range);
    co_return;
  }
  const u64 unit = std::max<u64>(limits_.discard_alignment, limits_.request_alignment);
  const u64 limit = limits_.max_discard != 0 ? limits_.max_discard : device_length_max;
  const u64 step = std::max(align_down(limit, unit), unit);
  while (!range.is_empty()) {
    u64 length = std::min(range.length, step);
    if (range.offset % unit != 0) {
      length = std::min(length, unit - range.offset % unit);
    } else if (length > unit) {
      length = align_down(length, unit);
    }
    co_await discard_piece({range.offset, length});
    range = byte_range::between(range.offset + length, range.end());
  }
}

// Advisory: bytes that the driver cannot give back keep their content.
task<void> node::discard_piece(byte_range range) {
  if (!range.is_aligned_to(limits_.request_alignment) && range.end() != length_)
    co_return;
  result<> done = co_await as_result(discardable_->discard(range));
  if (!done && done.error().kind() != error_kind::unsupported)
    co_await fail(std::move(done).error());
}

} // namespace bgfs
