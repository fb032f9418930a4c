// SPDX-License-Identifier: MIT
#include "fuse/tree/parking.h"

#include <cerrno>
#include <cstdlib>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs {
namespace {

descriptor open_nameless(int directory) {
  return descriptor(::openat(directory, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
}

// Not /tmp first: it is often memory, which is what there is too little of.
descriptor find_directory() {
  const char* const asked = ::getenv("TMPDIR"); // NOLINT: nobody sets it
  for (const char* path : {asked, "/var/tmp", "/tmp"}) {
    if (path == nullptr)
      continue;
    descriptor directory(::open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (directory.is_open() && open_nameless(directory.get()).is_open())
      return directory;
  }
  return {};
}

bool write_all(int fd, std::span<const std::byte> bytes, u64 offset) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return false;
    bytes = bytes.subspan(static_cast<std::size_t>(count));
    offset += static_cast<u64>(count);
  }
  return true;
}

} // namespace

parking::parking() : directory_(find_directory()) {}

bool parking::open_file() {
  if (!file_.is_open() && directory_.is_open())
    file_ = open_nameless(directory_.get());
  return file_.is_open();
}

// Behind everything that is parked.
parking::space parking::park(std::span<const std::byte> bytes) {
  if (!open_file())
    return {};
  const u64 offset = spaces_.empty() ? 0 : spaces_.rbegin()->second;
  if (!write_all(file_.get(), bytes, offset))
    return {};
  const byte_range range{offset, bytes.size()};
  spaces_.emplace(range.offset, range.end());
  parked_ += range.length;
  return {*this, range};
}

result<> parking::space::take_back(std::span<std::byte> into) const {
  BGFS_ASSERT(into.size() == range_.length);
  u64 offset = range_.offset;
  while (!into.empty()) {
    const ssize_t count =
        ::pread(in_->file_.get(), into.data(), into.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      return fail_errno(count == 0 ? EIO : errno,
                        "cannot read back {} bytes of a write that waited for memory", into.size());
    into = into.subspan(static_cast<std::size_t>(count));
    offset += static_cast<u64>(count);
  }
  return {};
}

void parking::lose_all() {
  (void)!::ftruncate(file_.get(), 0);
}

void parking::leave(byte_range range) {
  spaces_.erase(range.offset);
  parked_ -= range.length;
  if (spaces_.empty()) {
    file_.reset();
    return;
  }
  (void)::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(range.offset), static_cast<off_t>(range.length));
}

} // namespace bgfs
