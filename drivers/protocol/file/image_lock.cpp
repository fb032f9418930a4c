// SPDX-License-Identifier: MIT
#include "drivers/protocol/file/image_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <vector>

namespace bgfs {
namespace {

constexpr u64 used_byte = 100;
constexpr u64 unshared_byte = 200;
constexpr unsigned permission_count = 4; // bit 4 is retired
constexpr unsigned openers_named_max = 4;

struct flock lock_at(u64 byte, short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = 1;
  return lock;
}

permission_set unshared(permissions p) {
  return static_cast<permission_set>(~p.shared & permission::all);
}

// File systems without locks (some network ones) cannot protect, and must not be refused for it.
bool is_unsupported(int os_error) {
  return os_error == EOPNOTSUPP || os_error == ENOSYS || os_error == EINVAL || os_error == ENOLCK;
}

} // namespace

namespace {

namespace fs = std::filesystem;

// A directory under /proc may vanish at any moment, which ends the listing.
std::vector<fs::path> entries_of(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code gone;
  for (fs::directory_iterator at(directory, gone), end; !gone && at != end; at.increment(gone))
    found.push_back(at->path());
  return found;
}

// By other descriptors than those.
bool has_open(const fs::path& process, const fs::path& name, std::initializer_list<int> but = {}) {
  return std::ranges::any_of(entries_of(process / "fd"), [&](const fs::path& entry) {
    std::error_code gone;
    return !name.empty() && fs::read_symlink(entry, gone) == name &&
           std::ranges::none_of(but,
                                [&](int fd) { return entry.filename() == std::to_string(fd); });
  });
}

fs::path name_behind(int fd) {
  std::error_code ignored;
  return fs::read_symlink(fmt::format("/proc/self/fd/{}", fd), ignored);
}

} // namespace

// Compares the names behind descriptors and never the files: a stat of somebody's descriptor may be
// a request to a file system that hangs, or to our own mount, which waits for us.
std::string describe_openers(int fd) {
  const fs::path ours = name_behind(fd);
  std::string text;
  unsigned named = 0;
  for (const fs::path& process : entries_of("/proc")) {
    const std::string pid = process.filename();
    if (pid.find_first_not_of("0123456789") != std::string::npos || pid == std::to_string(getpid()))
      continue;
    if (!has_open(process, ours))
      continue;
    std::string command;
    std::ifstream(process / "comm") >> command;
    text += fmt::format("{}process {} ({})", text.empty() ? "" : ", ", pid, command);
    if (++named == openers_named_max)
      break;
  }
  return text;
}

namespace {

result<> take(int fd, const std::string& path, u64 first_byte, permission_set bits) {
  for (unsigned i = 0; i < permission_count; i++) {
    if ((bits & (1u << i)) == 0)
      continue;
    struct flock lock = lock_at(first_byte + i, F_RDLCK);
    if (fcntl(fd, F_OFD_SETLK, &lock) == 0 || is_unsupported(errno))
      continue;
    return fail_errno(errno, "cannot lock byte {} of '{}'", first_byte + i, path);
  }
  return {};
}

void give_up(int fd, u64 first_byte, permission_set bits) noexcept {
  for (unsigned i = 0; i < permission_count; i++) {
    if ((bits & (1u << i)) == 0)
      continue;
    struct flock lock = lock_at(first_byte + i, F_UNLCK);
    fcntl(fd, F_OFD_SETLK, &lock);
  }
}

void give_up_all(int fd) noexcept {
  give_up(fd, used_byte, permission::all);
  give_up(fd, unshared_byte, permission::all);
}

result<> test(int fd, int mirror, const std::string& path, u64 first_byte, permission_set bits,
              bool is_use) {
  for (unsigned i = 0; i < permission_count; i++) {
    if ((bits & (1u << i)) == 0)
      continue;
    struct flock lock = lock_at(first_byte + i, F_WRLCK);
    if (fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK)
      continue;
    std::string who = describe_openers(fd);
    if (who.empty())
      who = has_open("/proc/self", name_behind(fd), {fd, mirror})
                ? "another node of this process, or a process that cannot be seen from here,"
                : "another process";
    const auto bit = static_cast<permission_set>(1u << i);
    return fail(error_kind::busy,
                "cannot get the {} lock of '{}': {} uses the image; stop it, or open the image "
                "with 'read-only: true, force-share: true'",
                is_use ? fmt::format("'{}'", describe(bit)) : fmt::format("'no {}'", describe(bit)),
                path, who);
  }
  return {};
}

} // namespace

// Locks first, tests afterwards: of two processes that do this at once, at least one sees the
// other.
result<> image_lock::acquire(permissions wanted) {
  const auto more_used = static_cast<permission_set>(wanted.used & ~held_.used);
  const auto more_unshared = static_cast<permission_set>(unshared(wanted) & ~unshared(held_));
  held_.used |= more_used;
  held_.shared &= static_cast<permission_set>(~more_unshared);
  BGFS_CHECK(take(fd_, path_, used_byte, more_used));
  BGFS_CHECK(take(fd_, path_, unshared_byte, more_unshared));
  if (mirror_ != no_mirror)
    give_up_all(mirror_); // the first descriptor has them, and is the one that tests
  result<> tested = test(fd_, mirror_, path_, unshared_byte, more_used, true);
  if (tested)
    tested = test(fd_, mirror_, path_, used_byte, more_unshared, false);
  if (mirror_ != no_mirror) {
    result<> mirrored = mirror_on(mirror_);
    if (tested)
      tested = std::move(mirrored);
  }
  return tested;
}

void image_lock::release_beyond(permissions wanted) noexcept {
  const auto used = static_cast<permission_set>(held_.used & ~wanted.used);
  const auto kept_from_others = static_cast<permission_set>(unshared(held_) & ~unshared(wanted));
  for (const int fd : {fd_, mirror_}) {
    if (fd == no_mirror)
      continue;
    give_up(fd, used_byte, used);
    give_up(fd, unshared_byte, kept_from_others);
  }
  held_.used &= wanted.used;
  held_.shared |= static_cast<permission_set>(wanted.shared & permission::all);
}

result<> image_lock::mirror_on(int fd) {
  mirror_ = fd;
  BGFS_CHECK(take(fd, path_, used_byte, held_.used));
  return take(fd, path_, unshared_byte, unshared(held_));
}

void image_lock::move_to_mirror() noexcept {
  // A request in flight may keep the old description for a while; its locks would look like
  // somebody else's.
  give_up_all(fd_);
  if (mirror_ == no_mirror)
    held_ = {};
  mirror_ = no_mirror;
}

} // namespace bgfs
