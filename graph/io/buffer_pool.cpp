// SPDX-License-Identifier: MIT
#include "graph/io/buffer_pool.h"

#include "graph/base/assert.h"

#include <bit>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace bgfs {
namespace {

std::byte* allocate_pages(std::size_t bytes) {
  void* pages = std::aligned_alloc(buffer_pool::alignment, bytes);
  if (pages == nullptr)
    throw std::bad_alloc();
  return static_cast<std::byte*>(pages);
}

std::size_t class_length(unsigned size_class) {
  return buffer_pool::alignment << size_class;
}

} // namespace

buffer::buffer(buffer&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), data_(std::exchange(other.data_, nullptr)),
      length_(std::exchange(other.length_, 0)), size_class_(other.size_class_) {}

buffer& buffer::operator=(buffer&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(data_, other.data_);
  std::swap(length_, other.length_);
  std::swap(size_class_, other.size_class_);
  return *this;
}

buffer::~buffer() {
  if (pool_ != nullptr)
    pool_->put_back(*this);
}

buffer_pool::~buffer_pool() {
  for (auto& list : free_)
    for (std::byte* pages : list)
      std::free(pages);
  std::free(zeroes_);
}

buffer buffer_pool::allocate(std::size_t length) {
  const std::size_t pages = (length + alignment - 1) / alignment;
  const auto size_class =
      static_cast<unsigned>(std::bit_width(pages == 0 ? 0 : pages - 1)); // 2^class pages hold it
  buffer made;
  made.pool_ = this;
  made.length_ = length;
  made.size_class_ = static_cast<u8>(size_class);
  if (size_class < class_count && !free_[size_class].empty()) {
    made.data_ = free_[size_class].back();
    free_[size_class].pop_back();
    kept_bytes_ -= class_length(size_class);
  } else {
    made.data_ =
        allocate_pages(size_class < class_count ? class_length(size_class) : pages * alignment);
  }
  return made;
}

buffer buffer_pool::allocate_zeroed(std::size_t length) {
  buffer made = allocate(length);
  std::memset(made.data(), 0, length);
  return made;
}

void buffer_pool::put_back(buffer& b) noexcept {
  const unsigned size_class = b.size_class_;
  if (size_class < class_count && kept_bytes_ + class_length(size_class) <= kept_bytes_max_) {
    free_[size_class].push_back(b.data_);
    kept_bytes_ += class_length(size_class);
  } else {
    std::free(b.data_);
  }
}

std::span<const std::byte> buffer_pool::zeroes() {
  if (zeroes_ == nullptr) {
    zeroes_ = allocate_pages(zeroes_length);
    std::memset(zeroes_, 0, zeroes_length);
  }
  return {zeroes_, zeroes_length};
}

} // namespace bgfs
