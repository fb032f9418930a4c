// SPDX-License-Identifier: MIT
#include "config/event_reader.h"

#include <cerrno>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs {
namespace {

result<std::string> read_on(int fd) {
  std::string text;
  std::string block(64 << 10, '\0');
  for (;;) {
    const ssize_t count = ::read(fd, block.data(), block.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return fail_errno(errno, "the mount has ended");
    if (count == 0)
      return text;
    text.append(block, 0, static_cast<std::size_t>(count));
  }
}

} // namespace

// The end of the first is the beginning of the second; every line says when it was written, so that
// no two of them are alike.
std::string_view new_lines(std::string_view before, std::string_view now) {
  std::size_t begin = 0;
  while (begin < before.size()) {
    const std::string_view kept = before.substr(begin);
    if (now.starts_with(kept))
      return now.substr(kept.size());
    const std::size_t end = before.find('\n', begin);
    begin = end == std::string_view::npos ? before.size() : end + 1;
  }
  return now;
}

result<event_reader> event_reader::of(const mount_client& mount) {
  if (mount.is_one_file())
    return event_reader(mount, owned_fd(-1));
  const std::string path = mount.path(".bgfs/events");
  owned_fd events(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!events.is_open())
    return fail_errno(errno, "cannot open '{}'", path);
  return event_reader(mount, std::move(events));
}

result<std::string> event_reader::read_new() {
  if (!mount_.is_one_file())
    return read_on(events_.get());
  BGFS_TRY(std::string now, mount_.read(".bgfs/events"));
  std::string fresh(new_lines(seen_, now));
  seen_ = std::move(now);
  return fresh;
}

} // namespace bgfs
