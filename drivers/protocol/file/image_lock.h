// SPDX-License-Identifier: MIT
// Locks that keep two processes from using an image in ways that exclude each other. The bytes are
// those other tools lock too (reference section 1.10): a shared lock on byte 100+i says "I use
// permission i", one on byte 200+i "I do not share permission i". The locks belong to the open file
// description (F_OFD_SETLK) and go with it.
#pragma once

#include "graph/base/result.h"
#include "graph/model/permission.h"

#include <string>

namespace bgfs {

class image_lock {
public:
  // `fd` is borrowed; `path` is for messages.
  image_lock(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}

  // Takes the locks that `wanted` adds and looks for others that exclude it. error_kind::busy names
  // the permission and the processes that have the file open. Does not wait.
  [[nodiscard]] result<> acquire(permissions wanted);
  // Gives up the locks that `wanted` does not need.
  void release_beyond(permissions wanted) noexcept;
  [[nodiscard]] const permissions& held() const { return held_; }

private:
  [[nodiscard]] result<> take(u64 first_byte, permission_set bits);
  [[nodiscard]] result<> test(u64 first_byte, permission_set bits, bool is_use) const;
  void give_up(u64 first_byte, permission_set bits) noexcept;
  int fd_;
  std::string path_;
  permissions held_; // all locks taken, those of an acquire not yet committed included
};

// "process 4711 (qemu-img)" and so on, of those that have the file open; "" if none can be seen.
[[nodiscard]] std::string describe_openers(int fd);

} // namespace bgfs
