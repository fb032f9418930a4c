// SPDX-License-Identifier: MIT
// bgfs umount DIR|FILE: returns when every image is closed and unlocked.
#include "config/mount_client.h"
#include "fuse/mount/fuse_mounter.h"
#include "fuse/mount/holders.h"
#include "fuse/mount/mount_point.h"
#include "fuse/mount/outcome.h"
#include "fuse/mount/small_files.h"

#include <cerrno>
#include <charconv>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bgfs {
namespace {

// The serving process, found before the mount is gone.
struct served_by {
  pid_t pid = 0;
  descriptor end;     // readable when the process has ended
  descriptor outcome; // where it leaves how closing went
};

std::optional<long> number_in(const mount_client& mount, const std::string& name) {
  const result<std::string> text = mount.read(name);
  long number = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), number).ec != std::errc())
    return std::nullopt;
  return number;
}

served_by find_process(const std::string& mount_point) {
  served_by found;
  const result<mount_client> mount = mount_client::find(mount_point);
  if (!mount)
    return found;
  const auto pid = number_in(*mount, ".bgfs/pid");
  const auto number = number_in(*mount, ".bgfs/outcome-fd");
  if (!pid)
    return found;
  found.pid = static_cast<pid_t>(*pid);
  found.end = descriptor(static_cast<int>(syscall(SYS_pidfd_open, found.pid, 0)));
  if (!number)
    return found;
  const std::string path = fmt::format("/proc/{}/fd/{}", *pid, *number);
  // Of another namespace the number may be somebody else's.
  if (read_link(path).value_or("").starts_with("/memfd:bgfs-outcome"))
    found.outcome = descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return found;
}

void await_end(const served_by& process) {
  if (process.end.is_open()) {
    pollfd ended{process.end.get(), POLLIN, 0};
    while (poll(&ended, 1, -1) < 0 && errno == EINTR) {
    }
    return;
  }
  // No pidfd here (an old seccomp filter): ask until it is gone.
  constexpr useconds_t pause_us = 5000;
  while (process.pid > 0 && (kill(process.pid, 0) == 0 || errno == EPERM))
    usleep(pause_us);
}

int report_busy(const std::string& directory) {
  complain(fmt::format("cannot unmount '{}': it is in use", directory));
  for (const std::string& holder : holders_of(directory))
    complain("  " + holder);
  return mount_status::failure;
}

} // namespace

int fuse_mounter::umount(const std::string& given) {
  // A mount whose process has died cannot be looked at; its name is good enough to unmount it.
  const bool is_dead = is_dead_mount(given);
  char* const real = realpath(given.c_str(), nullptr);
  const std::string directory = real != nullptr ? real : given;
  std::free(real);
  const auto there = mounted_on(directory);
  if (!is_dead && (!there || there->type != mounted_type)) {
    complain(fmt::format("'{}' is no mount of bgfs", given));
    return mount_status::usage;
  }
  const served_by process = is_dead ? served_by() : find_process(directory);
  const result<> gone = unmount(directory, unmount_mode::if_unused);
  if (!gone && gone.error().kind() == error_kind::busy)
    return report_busy(directory);
  if (!gone) {
    complain(gone.error());
    return gone.error().kind() == error_kind::permission ? mount_status::usage
                                                         : mount_status::failure;
  }
  await_end(process);
  if (!process.outcome.is_open())
    return mount_status::ok; // of another user: it has ended, and told its own standard error
  const result<closing_outcome> outcome = read_outcome(process.outcome.get());
  if (!outcome) {
    complain(fmt::format("'{}' is unmounted, but {}", directory, outcome.error().message()));
    return mount_status::failure;
  }
  std::string_view messages = outcome->messages;
  while (!messages.empty()) {
    const std::size_t end = messages.find('\n');
    complain(messages.substr(0, end));
    messages.remove_prefix(end == std::string_view::npos ? messages.size() : end + 1);
  }
  return outcome->status;
}

} // namespace bgfs
