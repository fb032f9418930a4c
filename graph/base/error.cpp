// SPDX-License-Identifier: MIT
#include "graph/base/error.h"

#include <cerrno>
#include <cstring>

namespace bgfs {

std::string_view to_string(error_kind kind) {
  switch (kind) {
  case error_kind::io:
    return "io";
  case error_kind::no_space:
    return "no-space";
  case error_kind::invalid_argument:
    return "invalid-argument";
  case error_kind::invalid_image:
    return "invalid-image";
  case error_kind::corrupt_image:
    return "corrupt-image";
  case error_kind::unsupported:
    return "unsupported";
  case error_kind::permission:
    return "permission";
  case error_kind::busy:
    return "busy";
  case error_kind::not_found:
    return "not-found";
  case error_kind::out_of_range:
    return "out-of-range";
  case error_kind::cancelled:
    return "cancelled";
  }
  return "unknown";
}

error_kind kind_of_errno(int os_error) {
  switch (os_error) {
  case ENOSPC:
  case EDQUOT:
    return error_kind::no_space;
  case EFBIG:
  case ENXIO:
    return error_kind::out_of_range;
  case EINVAL:
  case ENAMETOOLONG:
    return error_kind::invalid_argument;
  case ENOTSUP:
  case ENOSYS:
  case ENOTTY:
    return error_kind::unsupported;
  case EACCES:
  case EPERM:
  case EROFS:
    return error_kind::permission;
  case EBUSY:
  case EAGAIN:
  case EEXIST:
  case ETXTBSY:
    return error_kind::busy;
  case ENOENT:
  case ENOTDIR:
  case ENODEV:
    return error_kind::not_found;
  case ECANCELED:
  case EINTR:
    return error_kind::cancelled;
  }
  return error_kind::io;
}

error::error(error_kind kind, std::string message, int os_error)
    : body_(std::make_unique<content>(kind, os_error, std::move(message))) {}

error::error(const error& other) : body_(std::make_unique<content>(*other.body_)) {}

error& error::operator=(const error& other) {
  if (this != &other)
    body_ = std::make_unique<content>(*other.body_);
  return *this;
}

error error::from_errno(int os_error, std::string what) {
  what += ": ";
  what += std::strerror(os_error); // NOLINT(concurrency-mt-unsafe): glibc's is thread safe
  return {kind_of_errno(os_error), std::move(what), os_error};
}

error& error::add_context(std::string_view text) {
  body_->message.insert(0, fmt::format("{}: ", text));
  return *this;
}

} // namespace bgfs
