// SPDX-License-Identifier: MIT
#include "fuse/protocol/negotiate.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace bgfs {
namespace {

struct named_flag {
  u64 flag;
  std::string_view name;
};

// Everything that is taken when it is offered, and why.
constexpr std::array wanted_flags = {
    named_flag{FUSE_ASYNC_READ, "async-read"},
    // One io_uring client never has more than one request in flight without it.
    named_flag{FUSE_ASYNC_DIO, "async-dio"},
    named_flag{FUSE_BIG_WRITES, "big-writes"},
    named_flag{FUSE_MAX_PAGES, "max-pages"},
    // O_TRUNC arrives with the open, where it can be told from truncate and refused.
    named_flag{FUSE_ATOMIC_O_TRUNC, "atomic-o-trunc"},
    named_flag{FUSE_DO_READDIRPLUS, "readdirplus"},
    named_flag{FUSE_READDIRPLUS_AUTO, "readdirplus-auto"},
    named_flag{FUSE_PARALLEL_DIROPS, "parallel-dirops"},
    // Without it the kernel asks for security.capability before every write.
    named_flag{FUSE_HANDLE_KILLPRIV_V2, "handle-killpriv-v2"},
    // A new mtime, which each of our own writes makes, does not throw the page cache away.
    named_flag{FUSE_EXPLICIT_INVAL_DATA, "explicit-inval-data"},
    named_flag{FUSE_ABORT_ERROR, "abort-error"},
    named_flag{FUSE_INIT_EXT, "init-ext"},
    named_flag{kernel::init_direct_io_allow_mmap, "direct-io-allow-mmap"},
    named_flag{kernel::init_passthrough, "passthrough"},
};
constexpr named_flag over_io_uring{kernel::init_over_io_uring, "over-io-uring"};
constexpr named_flag writeback{FUSE_WRITEBACK_CACHE, "writeback-cache"};

} // namespace

std::vector<std::string_view> negotiated::flag_names() const {
  std::vector<std::string_view> names;
  for (const named_flag& f : wanted_flags)
    if (has(f.flag))
      names.push_back(f.name);
  if (uses_uring())
    names.push_back(over_io_uring.name);
  if (holds_back_writes())
    names.push_back(writeback.name);
  return names;
}

namespace {

result<bool> choose_uring(u64 available, transport_choice wanted, bool may_uring) {
  const bool is_offered = (available & over_io_uring.flag) != 0;
  if (wanted == transport_choice::uring && !may_uring)
    return fail(
        error_kind::unsupported,
        "'transport=uring' needs io_uring, which this process may not use or which is older "
        "than Linux 5.19; use transport=dev");
  if (wanted == transport_choice::uring && !is_offered)
    return fail(
        error_kind::unsupported,
        "the kernel does not offer FUSE over io_uring: it is older than Linux 6.14, or root "
        "has not enabled it with 'echo 1 > /sys/module/fuse/parameters/enable_uring'; use "
        "transport=dev");
  return wanted != transport_choice::device && is_offered && may_uring;
}

} // namespace

result<negotiated> negotiate(const fuse_init_in& offered, wanted_mount wanted) {
  negotiated chosen;
  chosen.kernel_minor = offered.minor;
  if (offered.major > kernel::major_version) {
    chosen.needs_another_init = true;
    return chosen;
  }
  if (offered.major < kernel::major_version || offered.minor < kernel::minor_version_min)
    return fail(error_kind::unsupported,
                "the kernel speaks version {}.{} of the FUSE protocol, {}.{} is the oldest that "
                "will do (Linux 5.10)",
                offered.major, offered.minor, kernel::major_version, kernel::minor_version_min);
  u64 available = offered.flags;
  if ((offered.flags & FUSE_INIT_EXT) != 0)
    available |= u64{offered.flags2} << 32;
  for (const named_flag& f : wanted_flags)
    chosen.flags |= available & f.flag;
  BGFS_TRY(const bool is_uring, choose_uring(available, wanted.transport, wanted.may_uring));
  if (is_uring)
    chosen.flags |= over_io_uring.flag;
  if (wanted.is_writeback) {
    if ((available & writeback.flag) == 0)
      return fail(error_kind::unsupported,
                  "the kernel does not hold back writes for FUSE; mount without -o writeback");
    chosen.flags = (chosen.flags | writeback.flag) & ~kernel::init_passthrough;
  }
  chosen.write_length_max =
      chosen.has(FUSE_MAX_PAGES) ? kernel::payload_length_max : 32 * 4096; // 32: without the flag
  return chosen;
}

fuse_init_out init_reply(const negotiated& chosen, const fuse_init_in& offered) {
  fuse_init_out out{};
  out.major = kernel::major_version;
  out.minor = std::min(kernel::minor_version, offered.minor);
  if (chosen.needs_another_init) {
    out.minor = kernel::minor_version;
    return out;
  }
  out.max_readahead = std::min(offered.max_readahead, readahead_length_max);
  out.flags = static_cast<u32>(chosen.flags);
  out.flags2 = static_cast<u32>(chosen.flags >> 32);
  out.max_background = background_requests_max;
  out.congestion_threshold = background_requests_congested;
  out.max_write = chosen.write_length_max;
  out.max_pages = static_cast<u16>(chosen.write_length_max / 4096);
  out.time_gran = 1;
  if (chosen.passes_through())
    std::memcpy(reinterpret_cast<std::byte*>(&out) + kernel::max_stack_depth_offset,
                &kernel::max_stack_depth, sizeof kernel::max_stack_depth);
  return out;
}

} // namespace bgfs
