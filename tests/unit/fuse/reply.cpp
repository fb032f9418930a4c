// SPDX-License-Identifier: MIT
#include "fuse/reply.h"

#include <doctest/doctest.h>

#include <cerrno>

using namespace bgfs;

TEST_CASE("an error's kind decides its errno") {
  struct row {
    error_kind kind;
    int wanted;
  };
  for (const row& r :
       {row{error_kind::io, EIO}, row{error_kind::no_space, ENOSPC},
        row{error_kind::invalid_argument, EINVAL}, row{error_kind::invalid_image, EMEDIUMTYPE},
        row{error_kind::corrupt_image, EIO}, row{error_kind::unsupported, EOPNOTSUPP},
        row{error_kind::permission, EPERM}, row{error_kind::busy, EBUSY},
        row{error_kind::not_found, ENOENT}, row{error_kind::out_of_range, ENXIO},
        row{error_kind::cancelled, EINTR}}) {
    CAPTURE(to_string(r.kind));
    CHECK(errno_of(error(r.kind, "x")) == r.wanted);
  }
}

TEST_CASE("the operating system's own errno is passed on where a file system may return it") {
  CHECK(errno_of(error::from_errno(EDQUOT, "x")) == EDQUOT);
  CHECK(errno_of(error::from_errno(EROFS, "x")) == EROFS);
  CHECK(errno_of(error(error_kind::not_found, "x", ENOMEDIUM)) == ENOMEDIUM);
}

TEST_CASE("an errno about our own calls is not passed on") {
  CHECK(errno_of(error::from_errno(EBADF, "x")) == EIO);
  CHECK(errno_of(error::from_errno(ENOSYS, "x")) == EOPNOTSUPP); // the kernel would not ask again
  CHECK(errno_of(error::from_errno(ENOTCONN, "x")) == EIO);
  CHECK(errno_of(error::from_errno(EAGAIN, "x")) == EBUSY);
}
