// SPDX-License-Identifier: MIT
// Files that the kernel may serve an inode from by itself. `session_fd` is the descriptor requests
// come from. These make system calls that may block.
#pragma once

#include "fuse/protocol/negotiate.h"

namespace bgfs {

// Whether the kernel takes such files from this process; the reason, if not. Tries it once the
// answer to INIT was sent.
[[nodiscard]] result<> probe_backing(const negotiated& kernel, int session_fd);
// Makes an open file known and returns its number, not 0. Its open file description stays in use
// by the kernel beyond close_backing, until the last file that was opened with the number is
// closed.
[[nodiscard]] result<i32> open_backing(int session_fd, int fd, std::string_view path);
void close_backing(int session_fd, i32 number);

} // namespace bgfs
