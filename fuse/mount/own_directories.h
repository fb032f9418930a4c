// SPDX-License-Identifier: MIT
// Where this mount is seen in the tree: its directory, and where that was bound to. Every path that
// is opened is held against it, so the kernel's list is only read again when it has changed, which
// poll(2) tells.
#pragma once

#include "graph/io/file.h"

#include <mutex>
#include <string>
#include <vector>

namespace bgfs {

class own_directories {
public:
  explicit own_directories(std::string directory);
  own_directories(const own_directories&) = delete;
  own_directories& operator=(const own_directories&) = delete;

  // Any thread; makes system calls that do not block.
  [[nodiscard]] std::vector<std::string> now() const;
  // How often the list was read, for tests.
  [[nodiscard]] unsigned readings() const { return readings_; }

private:
  [[nodiscard]] bool may_have_changed() const;

  const std::string directory_;
  const descriptor mounts_; // /proc/self/mountinfo; closed: there is none, look each time
  mutable std::mutex mutex_;
  mutable std::vector<std::string> known_;
  mutable unsigned readings_ = 0;
};

} // namespace bgfs
