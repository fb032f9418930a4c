// SPDX-License-Identifier: MIT
#include "fuse/mount/fuse_mounter.h"

#include "fuse/mount/launch.h"
#include "fuse/mount/mount_place.h"
#include "fuse/mount/remount.h"
#include "fuse/mount/serve.h"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <sys/file.h>

namespace bgfs {

void complain(std::string_view message) {
  std::fprintf(stderr, "bgfs: %.*s\n", static_cast<int>(message.size()), message.data());
}

void complain(const error& e) {
  complain(e.message());
}

namespace {

// Two that mount at once (two runs of `mount -a`) do so one after the other, and the second finds
// what the first has mounted. What cannot be locked is mounted on without.
descriptor wait_for_turn(const mount_place& place) {
  descriptor fd(open(place.path.c_str(), O_RDONLY | O_CLOEXEC));
  while (fd.is_open() && flock(fd.get(), LOCK_EX) != 0 && errno == EINTR) {
  }
  return fd;
}

// -o export=NAME: the graph is read again, as if it had no other one.
result<> serve_only(mount_request& request, const mount_options& options, const registry& drivers) {
  if (options.only_export.empty())
    return {};
  request.source.only_export = options.only_export;
  request.source.is_writeback = options.is_writeback;
  BGFS_TRY(request.config, request.source.read(drivers));
  return {};
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
  request.is_strict = request.is_strict || options->is_strict;
  const result<> chosen = serve_only(request, *options, drivers);
  if (!chosen) {
    complain(chosen.error());
    return mount_status::usage;
  }
  result<mount_place> place = find_place(request.directory);
  if (!place) {
    complain(place.error());
    return mount_status::failure;
  }
  if (const result<> is_other = require_other_file(*place, request.config); !is_other) {
    complain(is_other.error());
    return mount_status::failure;
  }
  if (place->is_file) {
    result<std::string> only =
        choose_export(request.config, options->only_export, request.directory);
    if (!only) {
      complain(only.error());
      return mount_status::usage;
    }
    request.source.only_export = *std::move(only); // a reload shows no other either
  }
  descriptor turn = wait_for_turn(*place);
  const result<bool> is_there =
      is_mounted_already(*place, request.config.source(), request.source.only_export);
  if (!is_there) {
    complain(is_there.error());
    return mount_status::failure;
  }
  if (*is_there)
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
    return serve_mount({.mount = std::move(request),
                        .directory = place->path,
                        .is_one_file = place->is_file,
                        .options = std::move(for_session)},
                       drivers, report);
  });
}

} // namespace bgfs
