// SPDX-License-Identifier: MIT
#include "fuse/transport/backing.h"

#include "graph/io/file.h"

#include <cerrno>
#include <sys/mman.h>

namespace bgfs {
namespace {

i32 try_open(int session_fd, int fd) {
  const kernel::backing_map map{.fd = fd, .flags = 0, .padding = 0};
  return ioctl(session_fd, kernel::backing_open, &map);
}

} // namespace

result<> probe_backing(const negotiated& kernel, int session_fd) {
  if (kernel.holds_back_writes())
    return fail(error_kind::unsupported, "with -o writeback the kernel passes nothing through");
  if (!kernel.passes_through())
    return fail(error_kind::unsupported, "the kernel has no FUSE passthrough: it is older than "
                                         "Linux 6.9 or was built without it");
  const descriptor memory(memfd_create("bgfs-passthrough", MFD_CLOEXEC));
  if (!memory.is_open())
    return fail_errno(errno, "cannot make a file in memory to try passthrough with");
  const i32 number = try_open(session_fd, memory.get());
  if (number > 0) {
    close_backing(session_fd, number);
    return {};
  }
  if (errno == EPERM)
    return fail(error_kind::permission,
                "passthrough takes CAP_SYS_ADMIN in the initial user namespace: mount as root, "
                "outside of containers");
  return fail_errno(errno, "the kernel refuses passthrough");
}

result<i32> open_backing(int session_fd, int fd, std::string_view path) {
  const i32 number = try_open(session_fd, fd);
  if (number > 0)
    return number;
  if (errno == ELOOP)
    return fail(error_kind::unsupported,
                "'{}' lies on a file system that is stacked on others (overlayfs), from which the "
                "kernel passes nothing through; move it to one that is not",
                path);
  return fail_errno(errno, "the kernel refuses to pass '{}' through", path);
}

void close_backing(int session_fd, i32 number) {
  const auto which = static_cast<u32>(number);
  (void)ioctl(session_fd, kernel::backing_close, &which);
}

} // namespace bgfs
