// SPDX-License-Identifier: MIT
// The wire structs of the FUSE protocol, as <linux/fuse.h> has them, and the names that newer
// kernels added after the header of the oldest supported build system. Structs are copied with
// load<T>.
#pragma once

#include "graph/base/ints.h"

#include <linux/fuse.h>

namespace bgfs::kernel {

// The protocol this program speaks; the smaller of both sides' minors is used.
inline constexpr u32 major_version = 7;
inline constexpr u32 minor_version = 42;
// Linux 5.10; older ones lack FUSE_HANDLE_KILLPRIV_V2 and more.
inline constexpr u32 minor_version_min = 32;

// INIT flags; bits 32 and up travel in flags2.
inline constexpr u64 init_direct_io_allow_mmap = u64{1} << 36; // 7.39

inline constexpr u64 init_over_io_uring = u64{1} << 41; // 7.42

// Requests over io_uring (7.42, Documentation/filesystems/fuse/fuse-io-uring.rst). An entry of a
// queue is registered once with two pieces of memory: these headers, and one for payloads. It then
// carries one request after the other: the answer to one fetches the next.
struct uring_entry_head {
  u64 flags;
  u64 commit_id;      // comes with a request and goes with its answer
  u32 payload_length; // of the request, then of the answer: all that is in no other header
  u32 padding;
  u64 reserved;
};
struct uring_headers {
  std::byte in_out[128];    // fuse_in_header, then fuse_out_header
  std::byte operation[128]; // the first argument of the request
  uring_entry_head entry;
};
struct uring_command {
  u64 flags;
  u64 commit_id;
  u16 queue; // one for each possible processor
  std::byte padding[6];
};
static_assert(sizeof(uring_entry_head) == 32 && sizeof(uring_headers) == 288 &&
              sizeof(uring_command) == 24);
inline constexpr int uring_register = 1;
inline constexpr int uring_commit_and_fetch = 2;

// Opcodes.
inline constexpr u32 opcode_statx = 52;              // 7.39
inline constexpr u32 opcode_copy_file_range_64 = 53; // 7.45

struct copy_file_range_out { // 7.45
  u64 bytes_copied;
};

// What one request may carry beside its header: 1 MiB and the fixed fields before it.
inline constexpr u32 payload_length_max = 1 << 20;
inline constexpr u32 payload_pages_max = payload_length_max / 4096;
inline constexpr std::size_t name_length_max = 255;

} // namespace bgfs::kernel
