// SPDX-License-Identifier: MIT
// Ranges of a disk: holes, zeroes, reserved space, copies.
#include "fuse/tree/disk_change.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/offload.h"
#include "graph/io/run_on.h"

#include <cerrno>
#include <linux/falloc.h>
#include <sys/statvfs.h>

namespace bgfs {
namespace {

constexpr u64 copy_chunk = MiB;
// One request does not hold its process for longer than this much data takes; it asks again.
constexpr u64 copied_data_max = 32 * MiB;

// Each may read a table of the image.
constexpr unsigned status_pieces_max = 64;

struct host_space {
  u64 available = 0;
  bool is_known = false;
};

host_space space_at(const std::string& path) {
  struct statvfs s{};
  if (path.empty() || statvfs(path.c_str(), &s) != 0)
    return {};
  return {static_cast<u64>(s.f_bavail) * s.f_frsize, true};
}

bool needs_space(const block_status& s) {
  return !s.is_allocated || (s.is_zero && !s.is_data);
}

} // namespace

task<u64> raw_disk::seek(u64 offset, bool wants_data, u64 end) {
  const auto no_more = [&] {
    return fail(error{error_kind::out_of_range,
                      fmt::format("'{}' has no {} at or after {:#x}", policy_.name,
                                  wants_data ? "data" : "bytes", offset),
                      ENXIO});
  };
  co_await require_attached();
  end = std::min(end, length());
  if (offset >= end)
    co_await no_more();
  u64 at = offset;
  while (at < end) {
    const block_status s = co_await attached_->status_above({at, end - at});
    if (s.is_zero != wants_data)
      co_return at;
    if (s.length == 0)
      break;
    at += s.length;
  }
  if (wants_data)
    co_await no_more();
  co_return end; // which counts as a hole
}

task<u64> raw_disk::allocated_within(byte_range range) {
  co_await require_attached();
  range = readable_part(range);
  u64 known = 0;
  u64 at = range.offset;
  for (unsigned pieces = 0; at < range.end() && pieces < status_pieces_max; pieces++) {
    const block_status s =
        co_await attached_->status_above(byte_range::between(at, range.end()), false);
    const u64 part = std::min(std::max<u64>(s.length, 1), range.end() - at);
    known += s.is_data ? part : 0;
    at += part;
  }
  if (at >= range.end())
    co_return known;
  const result<u64> all = co_await as_result(allocated_length());
  co_return all ? std::min(known + (range.end() - at), std::max(known, *all)) : range.length;
}

// Makes a range read as zeroes. Runs that already do, and have no space, are not touched: a trim of
// a large empty disk costs nothing.
task<void> raw_disk::zero(byte_range range, bool may_unmap) {
  if (is_reserving_)
    co_await may_change();
  const change marked(*this);
  u64 at = range.offset;
  const u64 end = std::min(range.end(), length());
  while (at < end) {
    byte_range part = byte_range::between(at, end);
    if (may_unmap) {
      const block_status s = co_await attached_->status_above(part, false);
      part.length = std::min(part.length, std::max<u64>(s.length, 1));
      if (s.is_zero && !s.is_data && s.file == nullptr) {
        at = part.end();
        continue;
      }
    }
    const write_flags flags = may_unmap ? write_flag::may_unmap : 0;
    result<> outcome = co_await as_result(attached_->write_zeroes(part, flags));
    note(outcome);
    if (!outcome)
      co_await fail(std::move(outcome).error());
    at = part.end();
  }
}

task<void> raw_disk::require_host_space(byte_range range) {
  u64 needed = 0;
  for (u64 at = range.offset; at < range.end();) {
    const block_status s = co_await attached_->status_above(byte_range::between(at, range.end()));
    const u64 length_here = std::min(std::max<u64>(s.length, 1), range.end() - at);
    if (needs_space(s))
      needed += length_here;
    at += length_here;
  }
  co_await require_attached();
  const std::string path = top().host_path();
  const host_space space = co_await offload([&path] { return space_at(path); });
  if (space.is_known && needed > space.available)
    co_await fail(error{error_kind::no_space,
                        fmt::format("cannot reserve {} bytes for '{}': the file system of {} has "
                                    "{} left",
                                    needed, policy_.name, path, space.available),
                        ENOSPC});
}

// Makes sure that later writes to the range find space, without changing what is read: what has
// none is written with what it reads as now.
task<void> raw_disk::reserve(byte_range range) {
  co_await require_host_space(range);
  buffer bytes = top().owner().home().buffers().allocate(copy_chunk);
  for (u64 at = range.offset; at < range.end();) {
    const u64 left = range.end() - at;
    const block_status s = co_await attached_->status_above({at, left});
    u64 part = std::min(std::max<u64>(s.length, 1), left);
    if (needs_space(s)) {
      part = std::min(part, copy_chunk);
      co_await rewrite(at, bytes.bytes().first(part));
    }
    at += part;
  }
}

task<void> raw_disk::rewrite(u64 offset, std::span<std::byte> bytes) {
  const auto guard = co_await resizing_.lock();
  const reservation alone(*this);
  const lease_closure no_visits(attached_->shared_lease());
  co_await no_visits.wait();
  while (changes_running_ > 0)
    co_await unchanging_.wait();
  co_await attached_->read(offset, bytes);
  result<> outcome = co_await as_result(attached_->write(offset, bytes));
  note(outcome);
  if (!outcome)
    co_await fail(std::move(outcome).error());
}

task<void> raw_disk::allocate(u32 mode, byte_range range) {
  co_await require_writable();
  if (range.is_empty())
    co_await fail(error_kind::invalid_argument, "fallocate of '{}' with no bytes", policy_.name);
  const bool keeps_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const u32 kind = mode & ~u32{FALLOC_FL_KEEP_SIZE};
  if (kind != 0 && kind != FALLOC_FL_PUNCH_HOLE && kind != FALLOC_FL_ZERO_RANGE)
    co_await fail(error_kind::unsupported,
                  "fallocate mode {:#x} would move bytes of '{}'; a disk can punch holes, zero and "
                  "reserve",
                  mode, policy_.name);
  const bool is_punch = kind == FALLOC_FL_PUNCH_HOLE;
  if (range.end() > length() && !is_punch && !keeps_size) {
    if (policy_.is_growable) {
      co_await grow(range.end());
    } else {
      co_await fail(beyond_end(range.end()));
    }
  }
  const byte_range inside = readable_part(range);
  if (inside.is_empty())
    co_return;
  if (kind == 0) {
    co_await reserve(inside);
  } else {
    co_await zero(inside, is_punch);
  }
}

task<void> raw_disk::copy_data(copy_source source, u64 from_offset, u64 to_offset, u64 count) {
  const bool is_here = &source.home == &top().owner().home();
  if (is_here) {
    const result<> copied = co_await as_result(copy_by_host(source, from_offset, to_offset, count));
    if (copied)
      co_return;
  }
  buffer bytes = top().owner().home().buffers().allocate(count);
  co_await run_on(source.home,
                  source.disk.attached().read(from_offset, bytes.bytes().first(count)));
  (void)co_await write(to_offset, bytes.bytes().first(count), false);
}

// Without the bytes coming here; where the host's file system can, both share them.
task<void> raw_disk::copy_by_host(copy_source source, u64 from_offset, u64 to_offset, u64 count) {
  if (is_reserving_)
    co_await may_change();
  const change marked(*this);
  result<> outcome = co_await as_result(
      source.disk.attached().copy_to({from_offset, count}, attached(), to_offset));
  if (outcome)
    note(outcome);
  co_await std::move(outcome);
}

task<u64> raw_disk::count_readable(byte_range range) const {
  co_await require_attached();
  co_return readable_part(range).length;
}

task<u64> raw_disk::copy_from(copy_source source, u64 from_offset, u64 to_offset, u64 count) {
  co_await require_writable();
  count = co_await run_on(source.home, source.disk.count_readable({from_offset, count}));
  if (count == 0)
    co_return 0;
  if (&source.disk == this && byte_range{from_offset, count}.overlaps({to_offset, count}))
    co_await fail(error_kind::invalid_argument, "cannot copy within '{}': the ranges overlap",
                  policy_.name);
  if (to_offset + count > length()) {
    if (policy_.is_growable) {
      co_await grow(to_offset + count);
    } else if (to_offset >= length()) {
      co_await fail(beyond_end(to_offset));
    }
    count = std::min(count, length() - to_offset);
  }
  u64 done = 0;
  u64 data = 0;
  while (done < count && data < copied_data_max) {
    const byte_range from{from_offset + done, count - done};
    const block_status s = co_await run_on(source.home, source.disk.attached().status_above(from));
    u64 part = std::min(std::max<u64>(s.length, 1), from.length);
    result<> outcome;
    if (s.is_zero) {
      outcome = co_await as_result(zero({to_offset + done, part}, true));
    } else {
      part = std::min(part, copy_chunk);
      outcome = co_await as_result(copy_data(source, from.offset, to_offset + done, part));
      data += part;
    }
    if (!outcome && done == 0)
      co_await fail(std::move(outcome).error());
    if (!outcome)
      break; // what was copied counts; the next call meets the error
    done += part;
  }
  co_return done;
}

} // namespace bgfs
