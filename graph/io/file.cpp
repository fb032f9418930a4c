// SPDX-License-Identifier: MIT
#include "graph/io/file.h"

#include "graph/io/io_operation.h"
#include "graph/io/offload.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace bgfs {
namespace {

// What one system call may transfer at most (read(2)); larger requests are split.
constexpr std::size_t transfer_max = 0x7ffff000;

bool is_temporary(i64 status) {
  return status == -EINTR || status == -EAGAIN;
}

// A number or a negative errno, as the calls on offload threads bring it home.
template<class F>
i64 number_or_errno(F f) {
  const i64 status = f();
  return status < 0 ? -errno : status;
}

i64 call_read(int fd, std::span<std::byte> bytes, u64 offset) {
  return number_or_errno(
      [&] { return pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
}

i64 call_write(int fd, std::span<const std::byte> bytes, u64 offset, bool durable) {
  const iovec vector{const_cast<std::byte*>(bytes.data()), bytes.size()};
  return number_or_errno([&] {
    return pwritev2(fd, &vector, 1, static_cast<off_t>(offset), durable ? RWF_DSYNC : 0);
  });
}

// More than that of a file that may have to wait goes through the ring without a try. In memory
// nothing waits, and a thread of the kernel's would copy no sooner.
constexpr std::size_t at_once_length_max = 128 << 10;

} // namespace

bool is_same_file(const std::string& a, const std::string& b) {
  struct stat at{};
  struct stat bt{};
  return ::stat(a.c_str(), &at) == 0 && ::stat(b.c_str(), &bt) == 0 && at.st_dev == bt.st_dev &&
         at.st_ino == bt.st_ino;
}

bool is_in_memory(int fd) {
  struct statfs found{};
  return fstatfs(fd, &found) == 0 && (found.f_type == TMPFS_MAGIC || found.f_type == RAMFS_MAGIC);
}

bool file::may_try(std::size_t length) const {
  return at_once_ == at_once::everything ||
         (at_once_ == at_once::cached && length <= at_once_length_max);
}

std::size_t file::try_read(u64 offset, std::span<std::byte> bytes) {
  if (!may_try(bytes.size()) || !reads_.is_due())
    return 0;
  const iovec vector{bytes.data(), bytes.size()};
  const int flags = at_once_ == at_once::cached ? RWF_NOWAIT : 0;
  const ssize_t count = preadv2(fd_.get(), &vector, 1, static_cast<off_t>(offset), flags);
  if (count <= 0) {
    reads_.failed();
    return 0; // what is wrong the other way will find out again
  }
  reads_.succeeded();
  return static_cast<std::size_t>(count);
}

std::size_t file::try_write(u64 offset, std::span<const std::byte> bytes) {
  if (!may_try(bytes.size()) || !writes_.is_due())
    return 0;
  // An iovec cannot say that it is only read.
  const iovec vector{const_cast<std::byte*>(bytes.data()), bytes.size()};
  const int flags = at_once_ == at_once::cached ? RWF_NOWAIT : 0;
  const ssize_t count = pwritev2(fd_.get(), &vector, 1, static_cast<off_t>(offset), flags);
  if (count <= 0) {
    writes_.failed();
    return 0;
  }
  writes_.succeeded();
  return static_cast<std::size_t>(count);
}

void descriptor::reset() {
  if (fd_ >= 0)
    close(std::exchange(fd_, -1));
}

int open_quietly(const char* path, int flags, unsigned mode) {
  flags |= O_CLOEXEC;
  if ((flags & O_ACCMODE) == O_RDONLY) {
    const int fd = open(path, flags | O_NOATIME, mode);
    if (fd >= 0 || errno != EPERM)
      return fd;
  }
  return open(path, flags, mode);
}

task<descriptor> open_descriptor(std::string path, int flags, unsigned mode) {
  const i64 fd = co_await offload(
      [&] { return number_or_errno([&] { return open_quietly(path.c_str(), flags, mode); }); });
  if (fd < 0)
    co_await fail_errno(static_cast<int>(-fd), "cannot open '{}'", path);
  co_return descriptor(static_cast<int>(fd));
}

void file::replace(descriptor other) noexcept {
  // dup3 replaces what the number means in one step. Of its errors only EINTR is possible here.
  while (dup3(other.get(), fd_.get(), O_CLOEXEC) < 0)
    BGFS_ASSERT(errno == EINTR || errno == EBUSY, "both descriptors are open");
}

task<void> file::read(u64 offset, std::span<std::byte> bytes) {
  const std::size_t done = try_read(offset, bytes);
  bytes = bytes.subspan(done);
  offset += done;
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(bytes.size(), transfer_max));
    i64 count = 0;
    if (on_threads_) {
      count = co_await offload([&] { return call_read(fd_.get(), part, offset); });
    } else {
      count = co_await io_read(fd_.get(), part, offset);
    }
    if (is_temporary(count))
      continue;
    if (count < 0)
      co_await fail_errno(static_cast<int>(-count), "cannot read {} bytes at {:#x} of '{}'",
                          bytes.size(), offset, name_);
    if (count == 0) {
      std::memset(bytes.data(), 0, bytes.size());
      co_return;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<u64>(count);
  }
}

task<void> file::write(u64 offset, std::span<const std::byte> bytes, bool durable) {
  const std::size_t done = durable ? 0 : try_write(offset, bytes);
  bytes = bytes.subspan(done);
  offset += done;
  while (!bytes.empty()) {
    const auto part = bytes.first(std::min(bytes.size(), transfer_max));
    i64 count = 0;
    if (on_threads_) {
      count = co_await offload([&] { return call_write(fd_.get(), part, offset, durable); });
    } else {
      count = co_await io_write(fd_.get(), part, offset, durable ? RWF_DSYNC : 0);
    }
    if (is_temporary(count))
      continue;
    if (count <= 0)
      co_await fail_errno(count == 0 ? ENOSPC : static_cast<int>(-count),
                          "cannot write {} bytes at {:#x} of '{}'", bytes.size(), offset, name_);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<u64>(count);
  }
}

task<void> file::sync(bool data_only) {
  i64 status = -EINTR;
  while (is_temporary(status)) {
    const auto call = [&] {
      return number_or_errno([&] { return data_only ? fdatasync(fd_.get()) : fsync(fd_.get()); });
    };
    if (at_once_ == at_once::everything) { // nothing to wait for; a ring would wake a thread
      status = call();
    } else if (on_threads_) {
      status = co_await offload(call);
    } else {
      status = co_await io_sync(fd_.get(), data_only);
    }
  }
  if (status < 0)
    co_await fail_errno(static_cast<int>(-status), "cannot flush '{}'", name_);
}

task<void> file::allocate(int mode, byte_range range) {
  i64 status = -EINTR;
  while (is_temporary(status))
    status = co_await io_allocate(fd_.get(), mode, range);
  if (status < 0)
    co_await fail_errno(static_cast<int>(-status),
                        "cannot change the allocation (mode {:#x}) of {} bytes at {:#x} of '{}'",
                        mode, range.length, range.offset, name_);
}

task<void> file::truncate(u64 length) {
  const i64 status = co_await offload([&] {
    return number_or_errno([&] { return ftruncate(fd_.get(), static_cast<off_t>(length)); });
  });
  if (status < 0)
    co_await fail_errno(static_cast<int>(-status), "cannot set the length of '{}' to {} bytes",
                        name_, length);
}

task<struct stat> file::status() {
  struct stat found{};
  const i64 status =
      co_await offload([&] { return number_or_errno([&] { return fstat(fd_.get(), &found); }); });
  if (status < 0)
    co_await fail_errno(static_cast<int>(-status), "cannot get the attributes of '{}'", name_);
  co_return found;
}

task<u64> file::length() {
  const struct stat found = co_await status();
  if (!S_ISBLK(found.st_mode))
    co_return static_cast<u64>(found.st_size);
  u64 bytes = 0;
  const i64 status = co_await offload(
      [&] { return number_or_errno([&] { return ioctl(fd_.get(), BLKGETSIZE64, &bytes); }); });
  if (status < 0)
    co_await fail_errno(static_cast<int>(-status), "cannot get the length of device '{}'", name_);
  co_return bytes;
}

namespace {

// A search for holes may read the file's metadata, and most often finds them in memory.
result<data_range> find_run(int fd, const std::string& name, u64 offset, u64 file_length) {
  const off_t data = lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
  if (data < 0 && errno == ENXIO)
    return data_range{byte_range::between(offset, file_length), false};
  if (data < 0 && errno == EINVAL) // a file system that knows no holes
    return data_range{byte_range::between(offset, file_length), true};
  if (data < 0)
    return fail_errno(errno, "cannot look for data at {:#x} of '{}'", offset, name);
  if (static_cast<u64>(data) > offset) {
    const u64 end = std::min(static_cast<u64>(data), file_length);
    return data_range{byte_range::between(offset, end), false};
  }
  const off_t hole = lseek(fd, static_cast<off_t>(offset), SEEK_HOLE);
  if (hole < 0)
    return fail_errno(errno, "cannot look for holes at {:#x} of '{}'", offset, name);
  // A hole at the very offset that held data a moment ago: the file changes under us; call it data.
  const u64 end = static_cast<u64>(hole) > offset ? static_cast<u64>(hole) : offset + 1;
  return data_range{byte_range::between(offset, std::min(std::max(end, offset + 1), file_length)),
                    true};
}

} // namespace

task<data_range> file::seek_run(u64 offset, u64 file_length) {
  BGFS_ASSERT(offset < file_length);
  result<data_range> run =
      co_await offload_brief([&] { return find_run(fd_.get(), name_, offset, file_length); });
  co_return co_await std::move(run);
}

task<u64> file::copy_range(u64 offset, file& to, u64 to_offset, u64 length) {
  const i64 count = co_await offload([&] {
    auto from_position = static_cast<off_t>(offset);
    auto to_position = static_cast<off_t>(to_offset);
    return number_or_errno([&] {
      return copy_file_range(fd_.get(), &from_position, to.fd(), &to_position,
                             std::min<u64>(length, GiB), 0);
    });
  });
  if (count < 0)
    co_await fail_errno(static_cast<int>(-count), "cannot copy {} bytes from {:#x} of '{}' to '{}'",
                        length, offset, name_, to.name());
  if (count == 0)
    co_await fail(error_kind::unsupported, "copying from {:#x} of '{}' met its end", offset, name_);
  co_return static_cast<u64>(count);
}

} // namespace bgfs
