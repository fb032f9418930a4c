// SPDX-License-Identifier: MIT
#include "graph/io/buffer_pool.h"
#include "graph/io/offload.h"
#include "graph/io/spawn.h"
#include "graph/jobs/copy.h"

#include <cerrno>
#include <unistd.h>

namespace bgfs {

task<void> copy_target::copy_from(root&, byte_range, u64) {
  co_await fail(error_kind::unsupported, "the target takes bytes only");
}

task<void> root_copy_target::copy_from(root& from, byte_range range, u64 offset) {
  return from.copy_to(range, to_, offset);
}

task<void> root_copy_target::write(u64 offset, std::span<const std::byte> bytes) {
  // Where the copy ends before the target does, a part of a cluster is left.
  const bool reaches_end = offset + bytes.size() == to_.length();
  const u64 compressed = compressed_unit_ == 0 ? 0
                         : reaches_end         ? bytes.size()
                                               : align_down(bytes.size(), compressed_unit_);
  if (compressed > 0)
    co_await to_.write(offset, bytes.first(compressed), flags_ | write_flag::compressed);
  if (compressed < bytes.size())
    co_await to_.write(offset + compressed, bytes.subspan(compressed), flags_);
}

task<void> root_copy_target::write_zeroes(byte_range range) {
  co_await to_.write_zeroes(range, flags_ | write_flag::may_unmap);
}

task<void> stream_copy_target::write(u64 offset, std::span<const std::byte> bytes) {
  BGFS_ASSERT(offset == position_, "a stream is written in order");
  while (!bytes.empty()) {
    const int fd = fd_;
    const ssize_t count = co_await offload([fd, bytes] {
      const ssize_t written = ::write(fd, bytes.data(), bytes.size());
      return written < 0 ? static_cast<ssize_t>(-errno) : written;
    });
    if (count == -EINTR)
      continue;
    if (count < 0)
      co_await fail_errno(static_cast<int>(-count), "cannot write to {}", name_);
    position_ += static_cast<u64>(count);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

task<void> stream_copy_target::write_zeroes(byte_range range) {
  const task_context context = co_await current_context{};
  const std::span<const std::byte> zeroes = context.home->buffers().zeroes();
  while (!range.is_empty()) {
    const u64 length = std::min<u64>(range.length, zeroes.size());
    co_await write(range.offset, zeroes.first(length));
    range = byte_range::between(range.offset + length, range.end());
  }
}

} // namespace bgfs
