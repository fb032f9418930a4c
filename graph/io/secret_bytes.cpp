// SPDX-License-Identifier: MIT
#include "graph/io/secret_bytes.h"

#include "graph/base/assert.h"
#include "graph/base/checked.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

namespace bgfs {

secret_bytes::secret_bytes(std::size_t length) : length_(length) {
  if (length == 0)
    return;
  mapped_ = align_up(length, static_cast<u64>(::sysconf(_SC_PAGESIZE)));
  void* const pages =
      ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED)
    throw std::bad_alloc(); // nobody catches it: as for any other memory
  data_ = static_cast<std::byte*>(pages);
  (void)::madvise(pages, mapped_, MADV_DONTDUMP);
  relock();
}

secret_bytes::secret_bytes(std::span<const std::byte> copied) : secret_bytes(copied.size()) {
  std::ranges::copy(copied, data_);
}

secret_bytes::secret_bytes(secret_bytes&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), length_(std::exchange(other.length_, 0)),
      mapped_(std::exchange(other.mapped_, 0)) {}

secret_bytes& secret_bytes::operator=(secret_bytes&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(length_, other.length_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

secret_bytes::~secret_bytes() {
  if (data_ == nullptr)
    return;
  wipe(std::span(data_, mapped_));
  ::munmap(data_, mapped_);
}

void secret_bytes::shorten(std::size_t length) {
  BGFS_ASSERT(length <= length_, "secrets do not grow");
  wipe(bytes().subspan(length));
  length_ = length;
}

// An ordinary user may lock a few pages only. A secret that can be swapped out is still better than
// none.
void secret_bytes::relock() const noexcept {
  if (data_ != nullptr)
    (void)::mlock(data_, mapped_);
}

void wipe(std::span<std::byte> bytes) noexcept {
  if (!bytes.empty())
    ::explicit_bzero(bytes.data(), bytes.size());
}

void wipe(std::span<char> text) noexcept {
  wipe(std::as_writable_bytes(text));
}

bool is_equal_secretly(std::span<const std::byte> a, std::span<const std::byte> b) {
  if (a.size() != b.size())
    return false;
  std::byte difference{0};
  for (std::size_t i = 0; i < a.size(); i++)
    difference |= a[i] ^ b[i];
  return difference == std::byte{0};
}

} // namespace bgfs
