// SPDX-License-Identifier: MIT
#include "config/event_waiter.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bgfs {
namespace {

constexpr int look_again_ms = 250;

int number_in(const mount_client& mount, const std::string& name) {
  const result<std::string> text = mount.read(name);
  int number = -1;
  if (text)
    (void)std::from_chars(text->data(), text->data() + text->size(), number);
  return number;
}

// Of another namespace the numbers may be somebody else's.
bool is_event_file(const std::string& path) {
  std::array<char, PATH_MAX> target{};
  const ssize_t length = ::readlink(path.c_str(), target.data(), target.size());
  return length > 0 && std::string_view(target.data(), static_cast<std::size_t>(length))
                           .starts_with("/memfd:bgfs-events");
}

} // namespace

event_waiter::event_waiter(const mount_client& mount) {
  const int pid = number_in(mount, ".bgfs/pid");
  const int fd = number_in(mount, ".bgfs/events-fd");
  const std::string path = fmt::format("/proc/{}/fd/{}", pid, fd);
  if (pid <= 0 || fd < 0 || !is_event_file(path))
    return;
  owned_fd watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  owned_fd end(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!watch.is_open() || !end.is_open() ||
      ::inotify_add_watch(watch.get(), path.c_str(), IN_MODIFY) < 0)
    return;
  changes_ = std::move(watch);
  end_ = std::move(end);
}

void event_waiter::wait(std::optional<std::chrono::steady_clock::time_point> until) {
  int timeout_ms = changes_.is_open() ? -1 : look_again_ms;
  if (until) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(*until - std::chrono::steady_clock::now());
    const int left_ms = static_cast<int>(std::clamp<i64>(left.count(), 0, INT_MAX));
    timeout_ms = timeout_ms < 0 ? left_ms : std::min(timeout_ms, left_ms);
  }
  std::array<pollfd, 2> wanted = {pollfd{changes_.get(), POLLIN, 0}, pollfd{end_.get(), POLLIN, 0}};
  (void)::poll(wanted.data(), wanted.size(), timeout_ms); // negative descriptors are passed over
  std::array<char, 4096> seen{};
  while (changes_.is_open() && ::read(changes_.get(), seen.data(), seen.size()) > 0) {
  }
}

} // namespace bgfs
