// SPDX-License-Identifier: MIT
// The descriptions of `file` and `host_device`: options, opening, creating.
#include "drivers/protocol/file/file.h"

#include "drivers/protocol/file/file_driver.h"
#include "graph/io/offload.h"
#include "graph/model/node.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

namespace bgfs {
namespace {

constexpr std::string_view locking_choices[] = {"auto", "on", "off"};
constexpr std::string_view aio_choices[] = {"io_uring", "threads", "native"};
constexpr std::string_view preallocation_choices[] = {"off", "falloc", "full"};

constexpr option open_option_list[] = {
    {.name = "filename",
     .help = "the file or device to open",
     .is_required = true,
     .is_strong = true,
     .is_host_path = true},
    {.name = "locking",
     .type = option_type::choice,
     .help = "keep other processes from using the image in ways that exclude ours; 'auto' and 'on' "
             "lock with open file description locks, 'off' leaves it to the user",
     .default_text = "auto",
     .choices = locking_choices,
     .is_mutable = true},
    {.name = "aio",
     .type = option_type::choice,
     .help = "how requests reach the kernel: the event loop's ring (native is another name of it), "
             "or a pool "
             "of threads",
     .default_text = "io_uring",
     .choices = aio_choices,
     .is_mutable = true},
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

task<descriptor> open_for(const std::string& path, const file_settings& settings) {
  const file_access access = access_for(settings, {});
  result<descriptor> opened = co_await as_result(open_descriptor(path, access.open_flags()));
  if (!opened && opened.error().os_error() == EINVAL && settings.is_direct)
    co_await fail(error_kind::unsupported,
                  "the file system of '{}' does not support 'cache.direct' (O_DIRECT)", path);
  co_return co_await std::move(opened);
}

task<std::unique_ptr<driver>> open_either(open_request request, bool wants_device) {
  const std::string path = request.given.text("filename");
  const file_settings settings = read_file_settings(request.given, request.self.generic());
  descriptor fd = co_await open_for(path, settings);
  file opened(std::move(fd), path, settings.is_on_threads);
  const struct stat found = co_await opened.status();
  co_await check_kind(found, path, wants_device);
  const u64 length = co_await opened.length();
  if (length > device_length_max)
    co_return fail(error_kind::out_of_range, "'{}' is {} bytes long; the most is {}", path, length,
                   device_length_max);
  file_geometry geometry = read_geometry(opened.fd(), wants_device, settings.is_direct);
  geometry.is_in_memory = co_await offload([&opened] { return is_in_memory(opened.fd()); });
  std::error_code ignored;
  co_return std::make_unique<file_driver>(
      request.home, opened_file{.handle = std::move(opened),
                                .path = std::filesystem::absolute(path, ignored),
                                .geometry = geometry,
                                .length = length,
                                .settings = settings,
                                .given = request.given,
                                .schema = wants_device ? &device_options : &file_options,
                                .requests = &request.self.requests()});
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
  file_driver writer(request.home, opened_file{.handle = std::move(target),
                                               .path = request.filename,
                                               .geometry = {},
                                               .settings = {},
                                               .given = {}});
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
