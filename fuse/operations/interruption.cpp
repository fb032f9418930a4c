// SPDX-License-Identifier: MIT
#include "fuse/operations/interruption.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <csignal>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs {

bool has_pending_kill(std::string_view status) {
  // A signal that ends the process becomes a SIGKILL pending for each of its threads.
  for (const std::string_view key : {"SigPnd:\t", "ShdPnd:\t"}) {
    const std::size_t at = status.find(key);
    if (at == std::string_view::npos)
      continue;
    const std::string_view digits = status.substr(at + key.size(), 16);
    u64 signals = 0;
    const auto [end, bad] =
        std::from_chars(digits.data(), digits.data() + digits.size(), signals, 16);
    if (bad == std::errc{} && ((signals >> (SIGKILL - 1)) & 1) != 0)
      return true;
  }
  return false;
}

bool is_being_killed(u32 pid) {
  if (pid == 0)
    return false; // a process of another namespace
  std::array<char, 4096> text{};
  const int fd = open(fmt::format("/proc/{}/status", pid).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return false;
  const ssize_t length = read(fd, text.data(), text.size());
  close(fd);
  return length > 0 && has_pending_kill({text.data(), static_cast<std::size_t>(length)});
}

} // namespace bgfs
