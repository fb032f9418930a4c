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
  image_lock(const image_lock&) = delete;
  image_lock& operator=(const image_lock&) = delete;

  // Takes the locks that `wanted` adds and looks for others that exclude it. error_kind::busy names
  // the permission and the processes that have the file open. Does not wait.
  [[nodiscard]] result<> acquire(permissions wanted);
  // Gives up the locks that `wanted` does not need.
  void release_beyond(permissions wanted) noexcept;
  [[nodiscard]] const permissions& held() const { return held_; }

  // Another descriptor of the file, which is going to replace the first, holds the same locks from
  // now on, so that there is no moment without them. Locks of ours on two descriptors are like
  // those of two processes: tests are made while only the first has any.
  [[nodiscard]] result<> mirror_on(int fd);
  // The caller closes the other descriptor.
  void end_mirror() noexcept { mirror_ = no_mirror; }
  // The caller makes fd mean what the mirror does. Without a mirror no lock is held any more.
  void move_to_mirror() noexcept;

private:
  static constexpr int no_mirror = -1;
  int fd_;
  int mirror_ = no_mirror;
  std::string path_;
  permissions held_; // all locks taken, those of an acquire not yet committed included
};

// "process 4711 (qemu-img)" and so on, of those that have the file open; "" if none can be seen.
[[nodiscard]] std::string describe_openers(int fd);

} // namespace bgfs
