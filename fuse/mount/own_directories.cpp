// SPDX-License-Identifier: MIT
#include "fuse/mount/own_directories.h"

#include "fuse/mount/mount_point.h"

#include <fcntl.h>
#include <poll.h>
#include <utility>

namespace bgfs {
namespace {

std::vector<std::string> look(const std::string& directory) {
  std::vector<std::string> all = {directory};
  const auto ours = mounted_on(directory);
  if (!ours || ours->type != mounted_type)
    return all;
  for (const mount_entry& entry : list_mounts()) // where it was bound to, too
    if (entry.device == ours->device && entry.directory != directory)
      all.push_back(entry.directory);
  return all;
}

} // namespace

own_directories::own_directories(std::string directory)
    : directory_(std::move(directory)),
      mounts_(::open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)) {}

// Asked before the list is read: a change while it is read is seen the next time.
bool own_directories::may_have_changed() const {
  pollfd changed{.fd = mounts_.get(), .events = POLLPRI, .revents = 0};
  return !mounts_.is_open() || ::poll(&changed, 1, 0) != 0;
}

std::vector<std::string> own_directories::now() const {
  const std::lock_guard hold(mutex_);
  if (may_have_changed() || readings_ == 0) {
    known_ = look(directory_);
    readings_++;
  }
  return known_;
}

} // namespace bgfs
