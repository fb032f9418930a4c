// SPDX-License-Identifier: MIT
// INIT: what the kernel offers, what this program takes, and what that means for the mount.
#pragma once

#include "fuse/protocol/kernel.h"
#include "graph/base/result.h"

#include <string>
#include <vector>

namespace bgfs {

// Requests that nobody waits for (readahead, asynchronous I/O) in the kernel's hands at once.
inline constexpr u16 background_requests_max = 64;
inline constexpr u16 background_requests_congested = 48;
inline constexpr u32 readahead_length_max = 1 << 20;

struct negotiated {
  u32 kernel_minor = 0;
  u64 flags = 0; // FUSE_* INIT flags in use
  u32 write_length_max = 0;
  bool needs_another_init = false; // the kernel speaks a newer major version and asks again

  [[nodiscard]] bool has(u64 flag) const { return (flags & flag) != 0; }
  [[nodiscard]] bool uses_uring() const { return has(kernel::init_over_io_uring); }
  [[nodiscard]] bool holds_back_writes() const { return has(FUSE_WRITEBACK_CACHE); }
  [[nodiscard]] bool passes_through() const { return has(kernel::init_passthrough); }
  // For .bgfs/features: the names of the flags in use.
  [[nodiscard]] std::vector<std::string_view> flag_names() const;
};

// Which transport is asked for: -o transport.
enum class transport_choice : u8 { automatic, uring, device };

struct wanted_mount {
  transport_choice transport = transport_choice::device;
  bool may_uring = false;    // this process can carry requests over io_uring
  bool is_writeback = false; // the kernel holds back what is written; no passthrough then
};

// Pure. Fails when the kernel is older than Linux 5.10, or does not offer what is insisted on.
[[nodiscard]] result<negotiated> negotiate(const fuse_init_in& offered, wanted_mount wanted = {});
[[nodiscard]] fuse_init_out init_reply(const negotiated& chosen, const fuse_init_in& offered);

} // namespace bgfs
