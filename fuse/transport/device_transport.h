// SPDX-License-Identifier: MIT
// Requests over the descriptor of /dev/fuse that the mount was made with: non-blocking reads on the
// loop, a poll when there is nothing to read, answers by writev.
#pragma once

#include "fuse/transport/transport.h"

#include <memory>

namespace bgfs {

class loop;

// Requests that are served at once (from caches) would otherwise keep everything else waiting.
inline constexpr unsigned requests_per_turn = 16;

// `fd` is borrowed and becomes non-blocking; it stays open for as long as the transport lives.
[[nodiscard]] std::unique_ptr<transport> make_device_transport(loop& home, int fd);

} // namespace bgfs
