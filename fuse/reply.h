// SPDX-License-Identifier: MIT
// Answers to the kernel's requests, and the one table that gives an error its errno.
#pragma once

#include "graph/base/endian.h"
#include "graph/base/result.h"
#include "graph/io/buffer_pool.h"

#include <array>

namespace bgfs {

// The errno a process gets for an error: that of the operating system if it is one a file system
// may return, else that of the kind. Never 0.
[[nodiscard]] int errno_of(const error& e);

// The body of a successful answer: a fixed struct, bytes in a buffer, or both. A value that owns
// what it holds.
class reply {
public:
  reply() = default;

  template<class T>
  static reply of(const T& wire) {
    static_assert(sizeof(T) <= head_length_max);
    reply made;
    std::memcpy(made.head_.data(), &wire, sizeof(T));
    made.head_length_ = sizeof(T);
    return made;
  }
  // The first `length` bytes of a buffer.
  static reply of_bytes(buffer bytes, std::size_t length) {
    reply made;
    made.body_ = std::move(bytes);
    made.body_length_ = length;
    return made;
  }
  // Bytes that stay where they are until the answer was given.
  static reply of_room(std::span<const std::byte> bytes) {
    reply made;
    made.room_ = bytes;
    return made;
  }
  static reply of_text(std::string text) {
    reply made;
    made.text_ = std::move(text);
    return made;
  }

  [[nodiscard]] std::span<const std::byte> head() const {
    return std::span(head_).first(head_length_);
  }
  [[nodiscard]] std::span<const std::byte> body() const {
    if (!body_.is_empty())
      return body_.bytes().first(body_length_);
    if (!room_.empty())
      return room_;
    return std::as_bytes(std::span(text_));
  }

private:
  static constexpr std::size_t head_length_max = 128;
  std::array<std::byte, head_length_max> head_{};
  std::size_t head_length_ = 0;
  buffer body_;
  std::size_t body_length_ = 0;
  std::span<const std::byte> room_;
  std::string text_;
};

} // namespace bgfs
