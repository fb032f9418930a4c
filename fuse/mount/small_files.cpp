// SPDX-License-Identifier: MIT
#include "fuse/mount/small_files.h"

#include "graph/io/file.h"

#include <array>
#include <cerrno>
#include <climits>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs {

std::optional<std::string> read_small_file(const std::string& path) {
  constexpr std::size_t length_max = 1 << 20;
  const descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.is_open())
    return std::nullopt;
  std::string text;
  std::array<char, 4096> part{};
  while (text.size() < length_max) {
    const ssize_t count = read(fd.get(), part.data(), part.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return std::nullopt;
    if (count == 0)
      break;
    text.append(part.data(), static_cast<std::size_t>(count));
  }
  return text;
}

std::optional<std::string> read_link(const std::string& path) {
  std::array<char, PATH_MAX> target{};
  const ssize_t length = readlink(path.c_str(), target.data(), target.size());
  if (length < 0)
    return std::nullopt;
  return std::string(target.data(), static_cast<std::size_t>(length));
}

} // namespace bgfs
