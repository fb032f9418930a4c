// SPDX-License-Identifier: MIT
// The descriptions of `file` and `host_device`: options, opening, creating.
#include "drivers/protocol/file/file.h"

#include "drivers/protocol/file/file_driver.h"
#include "graph/io/offload.h"
#include "graph/model/node.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

namespace bgfs {
namespace {

constexpr std::string_view locking_choices[] = {"auto", "on", "off"};
constexpr std::string_view aio_choices[] = {"io_uring", "threads"};
constexpr std::string_view preallocation_choices[] = {"off", "falloc", "full"};

constexpr option open_option_list[] = {
    {.name = "filename",
     .help = "the file or device to open",
     .is_required = true,
     .is_host_path = true},
    {.name = "locking",
     .type = option_type::choice,
     .help = "keep other processes from using the image in ways that exclude ours; 'auto' and 'on' "
             "lock with open file description locks, 'off' leaves it to the user",
     .default_text = "auto",
     .choices = locking_choices},
    {.name = "aio",
     .type = option_type::choice,
     .help = "how requests reach the kernel: the event loop's ring, or a pool of threads",
     .default_text = "io_uring",
     .choices = aio_choices},
};
constexpr option_schema file_options{"driver 'file'", open_option_list};
constexpr option_schema device_options{"driver 'host_device'", open_option_list};

constexpr option create_option_list[] = {
    {.name = "preallocation",
     .type = option_type::choice,
     .help = "reserve the space (falloc), or write zeroes to all of it (full)",
     .default_text = "off",
     .choices = preallocation_choices},
    {.name = "nocow",
     .type = option_type::boolean,
     .help = "switch copy on write off for the new file (btrfs)",
     .default_text = "off"},
    {.name = "extent_size_hint",
     .type = option_type::size,
     .help =
         "allocate in pieces of this many bytes where the file system can (XFS); 0: as it likes",
     .default_text = "1M",
     .maximum = u64{1} << 31},
};
constexpr option_schema create_options{"driver 'file'", create_option_list};

// What O_DIRECT demands of this file. Linux 6.1 says it; before, a page is always enough.
file_geometry direct_geometry(int fd, bool is_device) {
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

result<> check_kind(const struct stat& found, const std::string& path, bool wants_device) {
  if (wants_device && !S_ISBLK(found.st_mode))
    return fail(error_kind::invalid_argument,
                "'{}' is not a block device; use driver 'file' for files", path);
  if (!wants_device && S_ISBLK(found.st_mode))
    return fail(error_kind::invalid_argument,
                "'{}' is a block device; use driver 'host_device' for it", path);
  if (!wants_device && S_ISDIR(found.st_mode))
    return fail(error_kind::invalid_argument, "'{}' is a directory, not an image", path);
  if (!wants_device && !S_ISREG(found.st_mode))
    return fail(error_kind::invalid_argument, "'{}' is neither a file nor a block device", path);
  return {};
}

int open_flags(const open_request& request, bool is_read_only) {
  int flags = is_read_only ? O_RDONLY : O_RDWR;
  if (request.self.generic().cache_direct)
    flags |= O_DIRECT;
  // A FIFO must not hold up the mount until somebody writes to it.
  return flags | O_NONBLOCK | O_NOCTTY;
}

task<descriptor> open_for(open_request request, const std::string& path) {
  result<descriptor> opened =
      co_await as_result(open_descriptor(path, open_flags(request, request.is_read_only)));
  if (opened)
    co_return *std::move(opened);
  const bool may_fall_back = request.self.generic().is_auto_read_only && !request.is_read_only &&
                             opened.error().kind() == error_kind::permission;
  if (!may_fall_back) {
    if (opened.error().os_error() == EINVAL && request.self.generic().cache_direct)
      co_return fail(error_kind::unsupported,
                     "the file system of '{}' does not support 'cache.direct' (O_DIRECT)", path);
    co_return fail(std::move(opened).error());
  }
  descriptor read_only = co_await open_descriptor(path, open_flags(request, true));
  request.self.become_read_only();
  co_return read_only;
}

task<std::unique_ptr<driver>> open_either(open_request request, bool wants_device) {
  const std::string path = request.given.text("filename");
  descriptor fd = co_await open_for(request, path);
  const bool on_threads = request.given.text("aio") == "threads";
  file opened(std::move(fd), path, on_threads);
  const struct stat found = co_await opened.status();
  co_await check_kind(found, path, wants_device);
  const u64 length = co_await opened.length();
  if (length > device_length_max)
    co_return fail(error_kind::out_of_range, "'{}' is {} bytes long; the most is {}", path, length,
                   device_length_max);
  file_geometry geometry{.is_device = wants_device};
  if (request.self.generic().cache_direct)
    geometry = direct_geometry(opened.fd(), wants_device);
  std::error_code ignored;
  std::string absolute = std::filesystem::absolute(path, ignored);
  co_return std::make_unique<file_driver>(request.home, std::move(opened), std::move(absolute),
                                          geometry, length, request.given.text("locking") != "off");
}

task<std::unique_ptr<driver>> open_file(open_request request) {
  return open_either(request, false);
}
task<std::unique_ptr<driver>> open_device(open_request request) {
  return open_either(request, true);
}

// Hints: where the file system knows nothing of them nothing is lost.
void apply_hints(int fd, bool nocow, u64 extent_size_hint) {
  if (nocow) {
    int attributes = 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, &attributes) == 0) {
      attributes |= FS_NOCOW_FL;
      ioctl(fd, FS_IOC_SETFLAGS, &attributes);
    }
  }
  if (extent_size_hint != 0) {
    struct fsxattr attributes{};
    if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes) == 0) {
      attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
      attributes.fsx_extsize = static_cast<u32>(extent_size_hint);
      ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
    }
  }
}

// An existing file is emptied only once its locks say that nobody uses it.
task<void> create_file(create_request request) {
  descriptor fd = co_await open_descriptor(request.filename, O_RDWR | O_CREAT | O_NONBLOCK, 0644);
  file target(std::move(fd), request.filename);
  const struct stat found = co_await target.status();
  co_await check_kind(found, request.filename, false);
  image_lock lock(target.fd(), request.filename);
  const permissions alone{permission::consistent_read | permission::write | permission::resize,
                          permission::consistent_read | permission::write_unchanged};
  co_await lock.acquire(alone);
  co_await target.truncate(0);
  apply_hints(target.fd(), request.given.flag("nocow"), request.given.number("extent_size_hint"));
  file_driver writer(request.home, std::move(target), request.filename, {}, 0, false);
  truncate_options options;
  const std::string& wanted = request.given.text("preallocation");
  if (wanted == "falloc")
    options.prealloc = preallocation::falloc;
  if (wanted == "full")
    options.prealloc = preallocation::full;
  co_await writer.truncate(request.length, options);
}

} // namespace

const driver_type file_driver_type{
    .name = "file",
    .kind = driver_kind::protocol,
    .summary = "a regular file of the host",
    .open_options = &file_options,
    .create_options = &create_options,
    .open = open_file,
    .create = create_file,
    .protocol_prefix = "file",
};

const driver_type host_device_driver_type{
    .name = "host_device",
    .kind = driver_kind::protocol,
    .summary = "a block device of the host",
    .open_options = &device_options,
    .open = open_device,
    .protocol_prefix = "host_device",
};

} // namespace bgfs
