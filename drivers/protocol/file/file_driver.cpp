// SPDX-License-Identifier: MIT
#include "drivers/protocol/file/file_driver.h"

#include "graph/io/buffer_pool.h"
#include "graph/io/offload.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

namespace bgfs {

file_driver::file_driver(loop& home, opened_file opened)
    : home_(&home), file_(std::move(opened.handle)), path_(std::move(opened.path)),
      geometry_(opened.geometry), length_(opened.length), settings_(opened.settings),
      given_(std::move(opened.given)), schema_(opened.schema), requests_(opened.requests),
      access_(access_for(settings_, {})), lock_(file_.fd(), path_) {
  file_.set_at_once(possible_at_once());
}

// Past the page cache everything waits for the medium.
at_once file_driver::possible_at_once() const {
  if (geometry_.is_direct)
    return at_once::nothing;
  return geometry_.is_in_memory ? at_once::everything : at_once::cached;
}

std::optional<direct_access> file_driver::direct() const {
  if (settings_.is_on_threads)
    return std::nullopt; // who asks for threads gets them
  return direct_access{.fd = file_.fd(),
                       .is_in_memory = geometry_.is_in_memory && !geometry_.is_direct,
                       .passes_cache = geometry_.is_direct,
                       .may_write = access_.writes,
                       .memory_alignment = geometry_.memory_alignment};
}

// Others only lengthen it: what shortens a file passes through here.
u64 file_driver::length() const {
  struct stat found{};
  if (has_other_writers_ && fstat(file_.fd(), &found) == 0)
    length_ = static_cast<u64>(found.st_size);
  return length_;
}

result<transparent::shown> file_driver::shows() const {
  if (geometry_.is_device)
    return fail(error_kind::unsupported, "'{}' is a device, not a file", path_);
  if (geometry_.is_direct)
    return fail(error_kind::unsupported, "'cache.direct' reads and writes past the page cache");
  return shown{.fd = file_.fd()};
}

// The descriptor, and the locks with it, goes with this object.
task<void> file_driver::close() {
  co_return;
}

void file_driver::refine_limits(block_limits& limits) const {
  limits.request_alignment = geometry_.request_alignment;
  limits.min_memory_alignment = std::max(limits.min_memory_alignment, geometry_.memory_alignment);
  limits.has_variable_length = geometry_.is_device || has_other_writers_;
}

task<std::optional<u64>> file_driver::allocated_length() {
  if (geometry_.is_device)
    co_return length_;
  const struct stat found = co_await file_.status();
  co_return static_cast<u64>(found.st_blocks) * 512;
}

bool file_driver::needs_bounce(const void* address) const {
  return geometry_.is_direct &&
         reinterpret_cast<std::uintptr_t>(address) % geometry_.memory_alignment != 0;
}

task<void> file_driver::read(u64 offset, std::span<std::byte> bytes) {
  if (!needs_bounce(bytes.data())) {
    co_await file_.read(offset, bytes);
    co_return;
  }
  const buffer bounce = home_->buffers().allocate(bytes.size());
  co_await file_.read(offset, bounce.bytes());
  std::memcpy(bytes.data(), bounce.data(), bytes.size());
}

task<void> file_driver::write(u64 offset, std::span<const std::byte> bytes, write_flags flags) {
  const bool durable = (flags & write_flag::durable) != 0;
  if (!needs_bounce(bytes.data())) {
    co_await file_.write(offset, bytes, durable);
  } else {
    const buffer bounce = home_->buffers().allocate(bytes.size());
    std::memcpy(bounce.data(), bytes.data(), bytes.size());
    co_await file_.write(offset, bounce.bytes(), durable);
  }
  length_ = std::max(length_, offset + bytes.size());
}

task<extent> file_driver::map(byte_range range) {
  if (range.offset >= length_)
    co_return extent{.kind = extent_kind::end};
  if (geometry_.is_device)
    co_return extent{
        .length = length_ - range.offset, .kind = extent_kind::data, .offset = range.offset};
  const data_range run = co_await file_.seek_run(range.offset, length_);
  co_return extent{.length = run.range.length,
                   .kind = run.is_data ? extent_kind::data : extent_kind::zero,
                   .offset = range.offset};
}

task<void> file_driver::device_call(unsigned long request, byte_range range,
                                    std::string_view verb) {
  const int status = co_await offload([this, request, range] {
    u64 argument[2] = {range.offset, range.length};
    return ioctl(file_.fd(), request, argument) == 0 ? 0 : errno;
  });
  if (status != 0)
    co_await fail_errno(status, "cannot {} {} bytes at {:#x} of '{}'", verb, range.length,
                        range.offset, path_);
}

task<void> file_driver::write_zeroes(byte_range range, write_flags flags) {
  if (geometry_.is_device) {
    // BLKZEROOUT may unmap where the device then reads zeroes; without may_unmap it is as good.
    co_await device_call(BLKZEROOUT, range, "zero");
  } else {
    co_await hold_back_what_follows(range);
    co_await zero_file(range, flags);
  }
  length_ = std::max(length_, range.end());
}

// Where a file system moves the end of a file in fallocate(2), it may lose what is written past the
// old end meanwhile. So a zero write that grows the file runs alone from its offset on (reference
// section 1.2); it may find the file grown when it has waited.
task<void> file_driver::hold_back_what_follows(byte_range range) {
  if (range.end() <= length_)
    co_return;
  tracked_request* const mine = requests_ != nullptr ? requests_->entering() : nullptr;
  BGFS_ASSERT(mine != nullptr, "only requests of the node write zeroes");
  mine->serialise_over(byte_range::between(range.offset, device_length_max));
  co_await mine->wait_for_conflicts();
}

task<void> file_driver::zero_file(byte_range range, write_flags flags) {
  const bool grows = range.end() > length_;
  if ((flags & write_flag::may_unmap) != 0 && !grows) {
    result<> punched =
        co_await as_result(file_.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range));
    if (punched)
      co_return;
    if (punched.error().kind() != error_kind::unsupported)
      co_await fail(std::move(punched).error());
  }
  if (has_zero_range_) {
    result<> zeroed = co_await as_result(file_.allocate(FALLOC_FL_ZERO_RANGE, range));
    if (zeroed)
      co_return;
    if (zeroed.error().kind() != error_kind::unsupported)
      co_await fail(std::move(zeroed).error());
    has_zero_range_ = false; // tmpfs and some others: do not ask again
  }
  // A hole that is then given space, where the file system knows both: the same in two steps.
  if (!grows) {
    co_await file_.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range);
    if ((flags & write_flag::may_unmap) == 0)
      co_await file_.allocate(0, range);
    co_return;
  }
  co_await fail(error_kind::unsupported, "'{}' cannot zero a range past its end", path_);
}

task<void> file_driver::discard(byte_range range) {
  result<> outcome = co_await as_result(discard_range(range));
  if (outcome) {
    discards_done_++;
    discarded_bytes_ += range.length;
  } else {
    discards_failed_++;
  }
  co_await std::move(outcome);
}

value file_driver::statistics_specific() const {
  value v;
  v.set("driver", geometry_.is_device ? "host_device" : "file");
  v.set("discard-nb-ok", discards_done_);
  v.set("discard-nb-failed", discards_failed_);
  v.set("discard-bytes-ok", discarded_bytes_);
  return v;
}

task<void> file_driver::discard_range(byte_range range) {
  if (geometry_.is_device) {
    co_await device_call(BLKDISCARD, range, "discard");
  } else {
    co_await file_.allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range);
  }
}

task<void> file_driver::copy_from(bytes_of_file source, u64 to_offset) {
  auto* const from = dynamic_cast<file_driver*>(source.file);
  if (from == nullptr)
    co_await fail(error_kind::unsupported, "'{}' copies from files and devices of the host only",
                  path_);
  byte_range range = source.range;
  while (!range.is_empty()) {
    const u64 copied =
        co_await from->file_.copy_range(range.offset, file_, to_offset, range.length);
    range = byte_range::between(range.offset + copied, range.end());
    to_offset += copied;
    length_ = std::max(length_, to_offset);
  }
}

task<void> file_driver::write_back() {
  co_return;
} // nothing is kept above the page cache

task<void> file_driver::flush_to_disk() {
  if (flush_failure_)
    co_await fail(error(*flush_failure_));
  result<> synced = co_await as_result(file_.sync());
  if (synced)
    co_return;
  if (!geometry_.is_direct)
    flush_failure_ = synced.error();
  co_await fail(std::move(synced).error());
}

task<void> file_driver::truncate(u64 length, truncate_options options) {
  if (options.prealloc == preallocation::metadata)
    co_await fail(error_kind::unsupported,
                  "file '{}' has no metadata to preallocate; off, falloc and full are possible",
                  path_);
  if (geometry_.is_device) {
    length_ = co_await file_.length();
    const bool is_enough = options.is_exact ? length == length_ : length <= length_;
    if (!is_enough)
      co_await fail(error_kind::unsupported, "device '{}' is {} bytes long and cannot be {}", path_,
                    length_, length);
    co_return;
  }
  const u64 before = file_driver::length();
  if (has_other_writers_ && length > before) {
    // Where others may have made it longer meanwhile, it must not be cut off: a byte of space at
    // the new end lengthens it, or does nothing.
    co_await file_.allocate(0, {length - 1, 1});
  } else {
    co_await file_.truncate(length);
  }
  length_ = length;
  if (length <= before || options.prealloc == preallocation::off)
    co_return;
  const byte_range added = byte_range::between(before, length);
  if (options.prealloc == preallocation::full) {
    const auto zeroes = home_->buffers().zeroes();
    for (u64 at = added.offset; at < added.end(); at += zeroes.size())
      co_await file_.write(at, zeroes.first(std::min<u64>(zeroes.size(), added.end() - at)));
  } else {
    result<> reserved = co_await as_result(file_.allocate(0, added));
    if (!reserved) {
      // Give back what was reserved before the space ran out.
      result<> undone = co_await as_result(file_.truncate(before));
      if (undone)
        length_ = before;
      co_await fail(std::move(reserved).error());
    }
  }
}

} // namespace bgfs
