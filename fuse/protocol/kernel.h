// SPDX-License-Identifier: MIT
// The wire structs of the FUSE protocol, as <linux/fuse.h> has them, and the names that newer
// kernels added after the header of the oldest supported build system. Structs are copied with
// load<T>.
#pragma once

#include "graph/base/ints.h"

#include <linux/fuse.h>

#include <cstddef>
#include <sys/ioctl.h>

namespace bgfs::kernel {

// The protocol this program speaks; the smaller of both sides' minors is used.
inline constexpr u32 major_version = 7;
inline constexpr u32 minor_version = 42;
// Linux 5.10; older ones lack FUSE_HANDLE_KILLPRIV_V2 and more.
inline constexpr u32 minor_version_min = 32;

// INIT flags; bits 32 and up travel in flags2.
inline constexpr u64 init_direct_io_allow_mmap = u64{1} << 36; // 7.39

inline constexpr u64 init_passthrough = u64{1} << 37;   // 7.40
inline constexpr u64 init_over_io_uring = u64{1} << 41; // 7.42

// Passthrough (7.40, Documentation/filesystems/fuse/fuse-passthrough.rst): a descriptor is made
// known to the connection, and an open is answered with its number: the kernel then reads, writes
// and maps that file instead of asking. Writing past its attributes is all we are told of.
struct backing_map {
  i32 fd;
  u32 flags;
  u64 padding;
};
static_assert(sizeof(backing_map) == 16);
inline constexpr unsigned long backing_open = _IOW(229, 1, backing_map); // on the session's fd
inline constexpr unsigned long backing_close = _IOW(229, 2, u32);
inline constexpr u32 open_passthrough = 1 << 7; // FOPEN_PASSTHROUGH
// fuse_open_out with the number where older headers have padding.
struct open_out {
  u64 fh;
  u32 open_flags;
  i32 backing_id;
};
static_assert(sizeof(open_out) == sizeof(fuse_open_out) && offsetof(open_out, backing_id) == 12);
// Follows flags2 in the answer to INIT: how many file systems may lie upon one another below us,
// ourselves counted. Stacks (overlayfs) below are refused with 1.
inline constexpr std::size_t max_stack_depth_offset = 36;
static_assert(offsetof(fuse_init_out, flags2) == max_stack_depth_offset - 4 &&
              sizeof(fuse_init_out) == 64);
inline constexpr u32 max_stack_depth = 1;

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
