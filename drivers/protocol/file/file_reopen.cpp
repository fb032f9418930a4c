// SPDX-License-Identifier: MIT
// The descriptor of a file changes while the file is open: with other options (reopen), and with
// auto-read-only as those who write come and go. The new one is opened through the old one's entry
// in /proc, so that it is the same file even if that was renamed or removed meanwhile.
#include "drivers/protocol/file/file_driver.h"
#include "graph/io/offload.h"
#include "graph/model/node.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <sys/ioctl.h>

#include <cerrno>

namespace bgfs {
namespace {

constexpr permission_set writing =
    permission::write | permission::write_unchanged | permission::resize;

// That users inside this graph let each other write is their affair: they write through one node,
// which keeps them in order. Nobody orders two processes, so while somebody here writes, no other
// process may.
permissions lock_needs(permissions p) {
  if ((p.used & writing) != 0)
    p.shared &= static_cast<permission_set>(~permission::write);
  return p;
}

result<descriptor> open_again(int fd, const std::string& path, file_access access) {
  const std::string name = fmt::format("/proc/self/fd/{}", fd);
  const int again = open_quietly(name.c_str(), access.open_flags());
  if (again >= 0)
    return descriptor(again);
  if (errno == EINVAL && access.is_direct)
    return fail(error_kind::unsupported,
                "the file system of '{}' does not support 'cache.direct' (O_DIRECT)", path);
  return fail_errno(errno, "cannot open '{}' again, for {}", path,
                    access.writes ? "writing" : "reading");
}

} // namespace

file_settings read_file_settings(const options& given, const node_options& generic) {
  return {.is_read_only = generic.is_read_only,
          .is_auto_read_only = generic.is_auto_read_only,
          .is_direct = generic.cache_direct,
          .is_on_threads = given.text("aio") == "threads",
          // force-share reads whatever anybody does, and is in nobody's way.
          .locks = given.text("locking") != "off" && !generic.force_share};
}

int file_access::open_flags() const {
  // A FIFO must not hold up the mount until somebody writes to it.
  return (writes ? O_RDWR : O_RDONLY) | (is_direct ? O_DIRECT : 0) | O_NONBLOCK | O_NOCTTY;
}

file_access access_for(const file_settings& s, permissions granted) {
  const bool has_writers = !s.is_auto_read_only || (granted.used & writing) != 0;
  return {.writes = !s.is_read_only && has_writers, .is_direct = s.is_direct};
}

// Linux 6.1 says what O_DIRECT demands; before, a page is always enough.
file_geometry read_geometry(int fd, bool is_device, bool is_direct) {
  if (!is_direct)
    return {.is_device = is_device};
  file_geometry g{.is_device = is_device,
                  .is_direct = true,
                  .request_alignment = 4096,
                  .memory_alignment = 4096};
#ifdef STATX_DIOALIGN
  struct statx found{};
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &found) == 0 &&
      (found.stx_mask & STATX_DIOALIGN) != 0 && found.stx_dio_offset_align != 0) {
    g.request_alignment = found.stx_dio_offset_align;
    g.memory_alignment = std::max<u32>(found.stx_dio_mem_align, 1);
    return g;
  }
#endif
  int logical = 0;
  if (is_device && ioctl(fd, BLKSSZGET, &logical) == 0 && logical > 0)
    g.request_alignment = static_cast<u32>(logical);
  return g;
}

void file_driver::drop_replacement() noexcept {
  lock_.end_mirror();
  replacement_.reset();
}

// From here on the new descriptor holds what the old one does.
result<> file_driver::stand_by(replacement r, bool locks) {
  drop_replacement();
  replacement_ = std::move(r);
  return locks ? lock_.mirror_on(replacement_->fd.get()) : result<>();
}

void file_driver::take_replacement() noexcept {
  if (!replacement_)
    return;
  lock_.move_to_mirror();
  file_.replace(std::move(replacement_->fd));
  access_ = replacement_->access;
  replacement_.reset();
}

// Gives up what neither the permissions in force nor those just checked need.
void file_driver::settle_locks() noexcept {
  const bool locks = settings_.locks || (next_ && next_->settings.locks);
  const permissions before = lock_.held();
  if (!locks) {
    lock_.release_beyond({});
  } else if (!is_checked_) {
    lock_.release_beyond(lock_needs(committed_));
  }
  const permissions& held = lock_.held();
  if (before != held)
    trace<point::lock_release>(home_->log(), path_, names_of(held.used), names_of(held.shared));
}

result<> file_driver::take_locks(permissions wanted) {
  result<> taken = lock_.acquire(lock_needs(wanted));
  if (taken) {
    const permissions& held = lock_.held();
    trace<point::lock_take>(home_->log(), path_, names_of(held.used), names_of(held.shared));
  } else {
    trace<point::lock_refuse>(home_->log(), path_, outcome_of(taken));
  }
  return taken;
}

// Locks and a descriptor that fit `wanted`, with the options that are about to be in force.
result<> file_driver::get_ready(permissions wanted) {
  const file_settings& s = next_ ? next_->settings : settings_;
  if (s.locks)
    BGFS_CHECK(take_locks(wanted));
  const file_access access = access_for(s, wanted);
  if (access == (replacement_ ? replacement_->access : access_))
    return {};
  if (access == access_) {
    drop_replacement();
    return {};
  }
  // Permissions change without suspending, so this one open waits for the file system.
  result<descriptor> fd = open_again(file_.fd(), path_, access);
  result<> ready = fd ? stand_by({*std::move(fd), access}, s.locks)
                      : result<>(std::unexpected(std::move(fd).error()));
  // Giving up permissions cannot fail (M3): then writing stays possible, and nobody does it.
  const bool is_only_less = access_.writes && access_.is_direct == access.is_direct;
  if (ready || !is_only_less)
    return ready;
  drop_replacement();
  return {};
}

result<> file_driver::check_permissions(permissions wanted) {
  checked_ = wanted;
  is_checked_ = true;
  result<> ready = get_ready(wanted);
  if (!ready)
    abort_permissions();
  return ready;
}

void file_driver::commit_permissions() noexcept {
  BGFS_ASSERT(is_checked_, "what is committed was checked");
  committed_ = checked_;
  is_checked_ = false;
  if (!next_)
    take_replacement();
  settle_locks();
}

void file_driver::abort_permissions() noexcept {
  is_checked_ = false;
  if (!next_)
    drop_replacement();
  settle_locks();
}

task<void> file_driver::prepare_reopen(const options& given, const node_options& generic) {
  BGFS_ASSERT(!next_, "one reopen at a time");
  BGFS_ASSERT(!is_checked_, "permissions are checked after the preparation");
  co_await check_only_mutable_change(*schema_, given_, given);
  const file_settings wanted = read_file_settings(given, generic);
  const file_access access = access_for(wanted, committed_);
  std::optional<replacement> made;
  if (access != access_) {
    result<descriptor> fd =
        co_await offload([this, access] { return open_again(file_.fd(), path_, access); });
    descriptor again = co_await std::move(fd);
    made = replacement{std::move(again), access};
  }
  file_geometry geometry = geometry_;
  if (wanted.is_direct != settings_.is_direct)
    geometry = read_geometry(made->fd.get(), geometry_.is_device, wanted.is_direct);
  geometry.is_in_memory = geometry_.is_in_memory;
  next_ = reopening{given, wanted, geometry};
  // Locks that were off, if they are, and then the same on both descriptors.
  result<> locked = wanted.locks ? take_locks(committed_) : result<>();
  if (locked && made)
    locked = stand_by(*std::move(made), wanted.locks);
  if (locked)
    co_return;
  abort_reopen();
  co_await std::move(locked);
}

void file_driver::commit_reopen() noexcept {
  BGFS_ASSERT(next_.has_value(), "what is committed was prepared");
  reopening next = *std::move(next_);
  next_.reset();
  settings_ = next.settings;
  given_ = std::move(next.given);
  geometry_ = next.geometry;
  take_replacement();
  file_.set_on_threads(settings_.is_on_threads);
  file_.set_at_once(possible_at_once());
  settle_locks();
}

void file_driver::abort_reopen() noexcept {
  next_.reset();
  drop_replacement();
  settle_locks();
}

} // namespace bgfs
