// SPDX-License-Identifier: MIT
// Resolving a path without ever looking into certain directories: those where this process itself
// is mounted. It would wait there for its own answer.
#pragma once

#include <span>
#include <string>

namespace bgfs {

struct walked_path {
  std::string path = {};     // absolute, without symbolic links as far as they could be followed
  bool is_forbidden = false; // it leads into a forbidden directory; `path` is that directory
  int os_error = 0;          // why it could not be followed to its end: ENOENT, ELOOP, ...
};

// `path` is absolute; `forbidden` are absolute directories without symbolic links. Blocks.
[[nodiscard]] walked_path walk_path(const std::string& path,
                                    std::span<const std::string> forbidden = {});

} // namespace bgfs
