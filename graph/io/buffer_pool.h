// SPDX-License-Identifier: MIT
// Page-aligned buffers that are reused: a fresh megabyte costs 256 page faults, a kept one none.
#pragma once

#include "graph/base/ints.h"

#include <array>
#include <span>
#include <vector>

namespace bgfs {

class buffer_pool;

// Owns its bytes until destroyed, on the pool's loop. Contents are unspecified when allocated.
class buffer {
public:
  buffer() = default;
  buffer(buffer&& other) noexcept;
  buffer& operator=(buffer&& other) noexcept;
  ~buffer();

  [[nodiscard]] std::span<std::byte> bytes() const { return {data_, length_}; }
  [[nodiscard]] std::byte* data() const { return data_; }
  [[nodiscard]] std::size_t length() const { return length_; }
  [[nodiscard]] bool is_empty() const { return length_ == 0; }

private:
  friend class buffer_pool;
  buffer_pool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t length_ = 0;
  u8 size_class_ = 0;
};

// Used on one loop only.
class buffer_pool {
public:
  static constexpr std::size_t alignment = 4096;

  buffer_pool() = default;
  ~buffer_pool();
  buffer_pool(const buffer_pool&) = delete;
  buffer_pool& operator=(const buffer_pool&) = delete;

  // `length` bytes, aligned to a page. Ends the process when there is no memory at all; callers
  // bound untrusted lengths before they come here.
  [[nodiscard]] buffer allocate(std::size_t length);
  // The same, all zero.
  [[nodiscard]] buffer allocate_zeroed(std::size_t length);

  // Zeroes to write from or to compare with; up to zeroes_length bytes, never written to.
  static constexpr std::size_t zeroes_length = 1 << 20;
  [[nodiscard]] std::span<const std::byte> zeroes();

  // How much of what is free is kept for the next one.
  static constexpr std::size_t kept_bytes_max_default = 64 << 20;
  void set_kept_bytes_max(std::size_t bytes) { kept_bytes_max_ = bytes; }
  [[nodiscard]] std::size_t kept_bytes_max() const { return kept_bytes_max_; }

private:
  friend class buffer;
  static constexpr std::size_t class_count =
      12; // 4 KiB, 8 KiB, ... 8 MiB; larger ones are not kept
  void put_back(buffer& b) noexcept;

  std::array<std::vector<std::byte*>, class_count> free_;
  std::size_t kept_bytes_ = 0;
  std::size_t kept_bytes_max_ = kept_bytes_max_default;
  std::byte* zeroes_ = nullptr;
};

} // namespace bgfs
