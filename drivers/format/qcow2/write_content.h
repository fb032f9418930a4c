// SPDX-License-Identifier: MIT
// What a write of guest data brings: bytes in memory, or those of a file that the host copies.
#pragma once

#include "graph/model/faces.h"

#include <span>

namespace bgfs::qcow2 {

class write_content {
public:
  write_content(std::span<const std::byte> bytes) // NOLINT(google-explicit-constructor)
      : bytes_(bytes), size_(bytes.size()) {}
  write_content(std::span<std::byte> bytes) // NOLINT(google-explicit-constructor)
      : write_content(std::span<const std::byte>(bytes)) {}
  write_content(bytes_of_file source) // NOLINT(google-explicit-constructor)
      : source_(source), size_(source.range.length) {}

  [[nodiscard]] u64 size() const { return size_; }
  [[nodiscard]] bool is_empty() const { return size_ == 0; }
  [[nodiscard]] bool is_in_file() const { return source_.file != nullptr; }
  // Of those in memory.
  [[nodiscard]] std::span<const std::byte> bytes() const {
    BGFS_ASSERT(!is_in_file(), "the bytes are in memory");
    return bytes_;
  }
  [[nodiscard]] bytes_of_file source() const { return source_; }

  [[nodiscard]] write_content part(u64 begin, u64 length) const {
    if (!is_in_file())
      return {bytes_.subspan(begin, length)};
    return {bytes_of_file{source_.file, {source_.range.offset + begin, length}}};
  }
  [[nodiscard]] write_content first(u64 length) const { return part(0, length); }
  [[nodiscard]] write_content from(u64 begin) const { return part(begin, size_ - begin); }

private:
  std::span<const std::byte> bytes_;
  bytes_of_file source_;
  u64 size_;
};

} // namespace bgfs::qcow2
