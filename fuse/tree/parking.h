// SPDX-License-Identifier: MIT
// Where the payloads of writes wait that came while there was no room for them in memory: in a file
// without a name, which is there only as long as somebody waits. The kernel hands over a write with
// its bytes, so they must go somewhere before the next request - which may be an interrupt, or
// belong to another root - can be read.
//
// Used on the loop of the mount only.
#pragma once

#include "graph/io/file.h"

#include <map>
#include <span>

namespace bgfs {

class parking {
public:
  // Finds the directory, which is kept: later the path to it might lead through the mount itself,
  // which would wait for its own answer.
  parking();
  ~parking() { BGFS_ASSERT(spaces_.empty(), "somebody's bytes are still parked"); }
  parking(const parking&) = delete;
  parking& operator=(const parking&) = delete;

  // A place in the file, free again at its end.
  class [[nodiscard]] space {
  public:
    space() = default;
    space(space&& other) noexcept : in_(std::exchange(other.in_, nullptr)), range_(other.range_) {}
    space& operator=(space&& other) noexcept {
      std::swap(in_, other.in_);
      std::swap(range_, other.range_);
      return *this;
    }
    ~space() {
      if (in_ != nullptr)
        in_->leave(range_);
    }
    [[nodiscard]] explicit operator bool() const { return in_ != nullptr; }
    // All of the bytes.
    [[nodiscard]] result<> take_back(std::span<std::byte> into) const;

  private:
    friend class parking;
    space(parking& in, byte_range range) : in_(&in), range_(range) {}
    parking* in_ = nullptr;
    byte_range range_;
  };

  // Empty when there is no such place: no directory for temporary files, or no space in it. Blocks
  // as a write into the page cache does.
  [[nodiscard]] space park(std::span<const std::byte> bytes);
  [[nodiscard]] u64 parked() const { return parked_; } // bytes now
  [[nodiscard]] bool has_file() const { return file_.is_open(); }
  void lose_all(); // for tests: the file is emptied below those who are parked

private:
  void leave(byte_range range);
  [[nodiscard]] bool open_file();

  const descriptor directory_; // closed: there is none
  descriptor file_;
  std::map<u64, u64> spaces_; // offset to end
  u64 parked_ = 0;
};

} // namespace bgfs
