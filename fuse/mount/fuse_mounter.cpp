// SPDX-License-Identifier: MIT
#include "fuse/mount/fuse_mounter.h"

#include "fuse/mount/launch.h"
#include "fuse/mount/mount_point.h"
#include "fuse/mount/remount.h"
#include "fuse/mount/serve.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

namespace bgfs {

void complain(std::string_view message) {
  std::fprintf(stderr, "bgfs: %.*s\n", static_cast<int>(message.size()), message.data());
}

void complain(const error& e) {
  complain(e.message());
}

namespace {

// Absolute and without symbolic links, as the kernel lists it. A mount whose process has died is
// taken away first: it cannot even be looked at.
result<std::string> find_directory(const std::string& given) {
  struct stat status{};
  if (is_dead_mount(given)) {
    complain(fmt::format("'{}' holds a mount whose process has died; it is replaced", given));
    BGFS_CHECK(unmount(given, unmount_mode::lazily));
  }
  if (stat(given.c_str(), &status) != 0)
    return fail_errno(errno, "cannot mount on '{}'", given);
  if (!S_ISDIR(status.st_mode))
    return fail(error{error_kind::not_found,
                      fmt::format("cannot mount on '{}': it is no directory", given), ENOTDIR});
  char* const real = realpath(given.c_str(), nullptr);
  if (real == nullptr)
    return fail_errno(errno, "cannot mount on '{}'", given);
  std::string directory = real;
  std::free(real);
  return directory;
}

// Two that mount at once (two runs of `mount -a`) do so one after the other, and the second finds
// what the first has mounted. A directory that cannot be locked is mounted on without.
descriptor wait_for_turn(const std::string& directory) {
  descriptor fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  while (fd.is_open() && flock(fd.get(), LOCK_EX) != 0 && errno == EINTR) {
  }
  return fd;
}

} // namespace

int fuse_mounter::mount(mount_request request, const registry& drivers) {
  const result<mount_options> options = parse_mount_options(request.options);
  if (!options) {
    complain(options.error());
    return mount_status::usage;
  }
  if (options->is_read_only) {
    request.source.is_read_only = true;
    request.config.make_read_only();
  }
  if (!options->only_export.empty()) {
    request.source.only_export = options->only_export;
    request.source.is_writeback = options->is_writeback;
    result<graph_config> one = request.source.read(drivers);
    if (!one) {
      complain(one.error());
      return mount_status::usage;
    }
    request.config = *std::move(one);
  }
  request.is_strict = request.is_strict || options->is_strict;
  result<std::string> directory = find_directory(request.directory);
  if (!directory) {
    complain(directory.error());
    return mount_status::failure;
  }
  descriptor turn = wait_for_turn(*directory);
  const auto there = mounted_on(*directory);
  if (there && there->type == mounted_type &&
      is_same_source(request.config.source(), there->source))
    return mount_status::ok; // `mount -a` asks for what is there already
  for (const error& warning : request.config.warnings())
    complain(warning);
  if (request.is_fake)
    return mount_status::ok;
  const bool is_foreground = request.is_foreground;
  const int ready_fd = request.ready_fd;
  mount_options for_session = *options;
  for_session.is_read_only = request.source.is_read_only;
  return launch(is_foreground, ready_fd, [&](launch_report& report) {
    turn.reset(); // in the background the caller's process still holds it, until all is ready
    return serve_mount({std::move(request), *std::move(directory), std::move(for_session)}, drivers,
                       report);
  });
}

} // namespace bgfs
