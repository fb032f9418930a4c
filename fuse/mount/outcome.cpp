// SPDX-License-Identifier: MIT
#include "fuse/mount/outcome.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <sys/mman.h>
#include <unistd.h>

namespace bgfs {

descriptor make_outcome_file() {
  return descriptor(memfd_create("bgfs-outcome", MFD_CLOEXEC));
}

void write_outcome(int fd, const closing_outcome& outcome) {
  const std::string text = fmt::format("{}\n{}", outcome.status, outcome.messages);
  if (fd >= 0)
    (void)!pwrite(fd, text.data(), text.size(), 0);
}

result<closing_outcome> read_outcome(int fd) {
  std::array<char, 16384> text{};
  const ssize_t length = pread(fd, text.data(), text.size(), 0);
  if (length < 0)
    return fail_errno(errno, "cannot read how the images were closed");
  closing_outcome outcome;
  const char* const end = text.data() + length;
  const auto [next, bad] = std::from_chars(text.data(), end, outcome.status);
  if (bad != std::errc{} || next == end)
    return fail(error_kind::io, "the serving process ended without closing its images");
  outcome.messages.assign(next + 1, end);
  return outcome;
}

} // namespace bgfs
