// SPDX-License-Identifier: MIT
// Bytes that must not get out: passphrases and keys. They lie in pages of their own that are left
// out of core dumps and, as far as the process may lock memory, out of swap; they are wiped before
// the pages go. After a fork the child's copy is no longer locked until relock().
#pragma once

#include "graph/base/ints.h"

#include <cstddef>
#include <span>

namespace bgfs {

class secret_bytes {
public:
  secret_bytes() = default;
  // All zero. Ends the process when there is no memory at all; callers bound untrusted lengths.
  explicit secret_bytes(std::size_t length);
  explicit secret_bytes(std::span<const std::byte> copied);
  secret_bytes(secret_bytes&& other) noexcept;
  secret_bytes& operator=(secret_bytes&& other) noexcept;
  ~secret_bytes();

  [[nodiscard]] std::span<std::byte> bytes() { return {data_, length_}; }
  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, length_}; }
  [[nodiscard]] std::size_t length() const { return length_; }
  // Wipes what is cut off.
  void shorten(std::size_t length);
  // Tries to lock the pages again, in a child of the process that made them.
  void relock() const noexcept;

private:
  std::byte* data_ = nullptr;
  std::size_t length_ = 0;
  std::size_t mapped_ = 0; // whole pages
};

// Overwrites memory in a way that is not optimised away.
void wipe(std::span<std::byte> bytes) noexcept;
void wipe(std::span<char> text) noexcept;

// Whether the bytes are the same, in a time that does not depend on where they differ.
[[nodiscard]] bool is_equal_secretly(std::span<const std::byte> a, std::span<const std::byte> b);

} // namespace bgfs
