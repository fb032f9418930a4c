// SPDX-License-Identifier: MIT
#include "fuse/mount/instance_lock.h"

#include "fuse/mount/mount_point.h"
#include "fuse/mount/small_files.h"

#include <cerrno>
#include <chrono>
#include <fcntl.h>
#include <sstream>
#include <sys/file.h>
#include <sys/sysmacros.h>
#include <thread>

namespace bgfs {
namespace {

// "process 123", from the kernel's list of locks, or what can be said without it.
std::string holder_of(int fd) {
  struct stat status{};
  if (fstat(fd, &status) != 0)
    return "another process";
  const std::string file =
      fmt::format("{:02x}:{:02x}:{}", major(status.st_dev), minor(status.st_dev), status.st_ino);
  std::istringstream locks(read_small_file("/proc/locks").value_or(""));
  std::string line;
  while (std::getline(locks, line)) {
    std::istringstream words(line);
    std::string number, kind, mode, type, pid, where;
    words >> number >> kind >> mode >> type >> pid >> where;
    if (kind == "FLOCK" && where == file)
      return "process " + pid;
  }
  return "another process";
}

std::string mounted_where(const std::string& source) {
  for (const mount_entry& entry : list_mounts())
    if (entry.type == mounted_type && entry.source == source)
      return fmt::format(" on '{}'", entry.directory);
  return {};
}

} // namespace

result<descriptor> lock_graph_file(const std::string& path) {
  descriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.is_open())
    return fail_errno(errno, "cannot open the graph '{}'", path);
  // A holder without a mount is one that is just ending, or beginning: it is known in a moment.
  constexpr std::chrono::milliseconds moment{10};
  constexpr int moments_max = 200;
  const auto is_taken = [&] { return flock(fd.get(), LOCK_EX | LOCK_NB) == 0; };
  bool has_lock = is_taken();
  for (int i = 0; !has_lock && errno == EWOULDBLOCK && i < moments_max; i++) {
    if (!mounted_where(path).empty())
      break;
    std::this_thread::sleep_for(moment);
    has_lock = is_taken();
  }
  if (has_lock)
    return fd;
  if (errno != EWOULDBLOCK)
    return fail_errno(errno, "cannot lock the graph '{}'", path);
  return fail(error_kind::busy,
              "the graph '{}' is mounted already{}, by {}; one graph is served by one process: "
              "unmount it there first",
              path, mounted_where(path), holder_of(fd.get()));
}

} // namespace bgfs
