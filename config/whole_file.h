// SPDX-License-Identifier: MIT
// Small files as a whole, on the command line's side: they block.
#pragma once

#include "graph/base/result.h"

#include <string>
#include <utility>

namespace bgfs {

inline constexpr std::size_t whole_file_length_max = 64 << 20;

// A descriptor that closes itself; that of graph/io is for tasks.
class owned_fd {
public:
  explicit owned_fd(int fd = -1) : fd_(fd) {}
  owned_fd(owned_fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  owned_fd& operator=(owned_fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~owned_fd();
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool is_open() const { return fd_ >= 0; }

private:
  int fd_;
};

[[nodiscard]] result<std::string> read_whole_file(const std::string& path);
// The file holds the text, or what it held before, whatever happens meanwhile; when this returns,
// the text survives a loss of power. Uses a hidden file beside it, `.NAME.new`, so that only one
// caller at a time may do this.
[[nodiscard]] result<> replace_file(const std::string& path, const std::string& text);
// The same promise for giving a file another name, and for taking one away.
[[nodiscard]] result<> rename_file(const std::string& from, const std::string& to);
[[nodiscard]] result<> remove_file(const std::string& path);

} // namespace bgfs
