// SPDX-License-Identifier: MIT
#include "fuse/reply.h"

#include <algorithm>
#include <array>
#include <cerrno>

namespace bgfs {
namespace {

// What read, write, open and their like may be told. Others (EBADF, EFAULT, EAGAIN, ENOSYS, ...)
// say something about our own calls, would be misread by the kernel, or make it stop asking.
constexpr std::array passed_on = {
    EPERM,        ENOENT,       EIO,       ENXIO,     E2BIG,      EACCES,    EBUSY,       EEXIST,
    EXDEV,        ENODEV,       ENOTDIR,   EISDIR,    EINVAL,     ENOTTY,    ETXTBSY,     EFBIG,
    ENOSPC,       EROFS,        ERANGE,    ENODATA,   EOPNOTSUPP, ENOMEDIUM, EMEDIUMTYPE, EDQUOT,
    ENAMETOOLONG, ESTALE,       ETIMEDOUT, ENOTEMPTY, ENOLCK,     EREMOTEIO, EUCLEAN,     EILSEQ,
    ECONNREFUSED, EHOSTUNREACH, EINTR,     ECANCELED,
};

int errno_of(error_kind kind) {
  switch (kind) {
  case error_kind::io:
    return EIO;
  case error_kind::no_space:
    return ENOSPC;
  case error_kind::invalid_argument:
    return EINVAL;
  case error_kind::invalid_image:
    return EMEDIUMTYPE;
  case error_kind::corrupt_image:
    return EIO; // reported once, with the sentence in last-error
  case error_kind::unsupported:
    return EOPNOTSUPP;
  case error_kind::permission:
    return EPERM;
  case error_kind::busy:
    return EBUSY;
  case error_kind::not_found:
    return ENOENT;
  case error_kind::out_of_range:
    return ENXIO;
  case error_kind::cancelled:
    return EINTR;
  }
  return EIO;
}

} // namespace

int errno_of(const error& e) {
  if (std::ranges::find(passed_on, e.os_error()) != passed_on.end())
    return e.os_error();
  return errno_of(e.kind());
}

} // namespace bgfs
