// SPDX-License-Identifier: MIT
#include "fuse/mount/mount_place.h"

#include "config/mount_client.h"
#include "fuse/mount/fuse_mounter.h"
#include "fuse/mount/remount.h"

#include <cerrno>
#include <cstdlib>
#include <sys/stat.h>

namespace bgfs {
namespace {

std::unexpected<error> missing(const std::string& given) {
  return fail(error{error_kind::not_found,
                    fmt::format("cannot mount on '{}': it does not exist; make a directory there "
                                "(mkdir), or an empty file (touch) to show one root on",
                                given),
                    ENOENT});
}

// The mount that a path is seen through.
std::optional<mount_entry> mount_around(const std::string& path) {
  std::optional<mount_entry> around;
  for (mount_entry& entry : list_mounts()) {
    const std::string& at = entry.directory;
    const bool holds = path == at || at == "/" || path.starts_with(at + "/");
    if (holds && (!around || at.size() >= around->directory.size()))
      around = std::move(entry);
  }
  return around;
}

// On one of our own files the mount would hide it from the others who know its path, and depend on
// the mount below.
result<> require_no_mount_around(const std::string& file) {
  const auto around = mount_around(file);
  if (!around || around->type != mounted_type)
    return {};
  if (around->directory == file)
    return fail(error_kind::busy,
                "cannot mount on '{0}': it shows '{1}' already; unmount it first (bgfs umount {0})",
                file, around->source);
  return fail(error_kind::invalid_argument,
              "cannot mount on '{}': it lies in the mount of '{}' on '{}'; take a file outside of "
              "it",
              file, around->source, around->directory);
}

} // namespace

result<mount_place> find_place(const std::string& given) {
  struct stat status{};
  if (is_dead_mount(given)) {
    complain(fmt::format("'{}' holds a mount whose process has died; it is replaced", given));
    BGFS_CHECK(unmount(given, unmount_mode::lazily));
  }
  if (stat(given.c_str(), &status) != 0)
    return errno == ENOENT ? missing(given) : fail_errno(errno, "cannot mount on '{}'", given);
  const bool is_file = S_ISREG(status.st_mode);
  if (!is_file && !S_ISDIR(status.st_mode))
    return fail(error{error_kind::not_found,
                      fmt::format("cannot mount on '{}': it is neither a directory nor a regular "
                                  "file",
                                  given),
                      ENOTDIR});
  char* const real = realpath(given.c_str(), nullptr);
  if (real == nullptr)
    return fail_errno(errno, "cannot mount on '{}'", given);
  mount_place found{.path = real, .is_file = is_file};
  std::free(real);
  return found;
}

result<> require_other_file(const mount_place& place, const graph_config& config) {
  std::vector<std::string> paths = config.host_paths();
  paths.push_back(config.source());
  for (const std::string& path : paths)
    if (place.is_file && is_same_source(path, place.path))
      return fail(error_kind::invalid_argument,
                  "cannot mount on '{}': it is what would be mounted, and hidden by that; take "
                  "another file",
                  place.path);
  return {};
}

result<std::string> choose_export(const graph_config& config, const std::string& wanted,
                                  const std::string& file) {
  if (!wanted.empty())
    return wanted; // reading the graph has found it
  const std::vector<export_spec>& all = config.exports();
  if (all.size() == 1)
    return all.front().name;
  std::string names;
  for (const export_spec& e : all)
    names += (names.empty() ? "" : ", ") + e.name;
  return fail(error_kind::invalid_argument,
              "'{}' is a file, which shows one root, and '{}' has {} ({}): say which with -o "
              "export=NAME, or mount it on a directory",
              file, config.source(), all.size(), names.empty() ? "none" : names);
}

result<bool> is_mounted_already(const mount_place& place, const std::string& source,
                                const std::string& only_export) {
  const auto there = mounted_on(place.path);
  if (there && there->type == mounted_type && is_same_source(source, there->source)) {
    if (!place.is_file)
      return true;
    const result<mount_client> mount = mount_client::find(place.path);
    const result<std::string> shown =
        mount ? mount->read(".bgfs/exports") : result<std::string>(std::string());
    if (shown && *shown == only_export + "\n")
      return true;
  }
  if (place.is_file)
    BGFS_CHECK(require_no_mount_around(place.path));
  return false;
}

} // namespace bgfs
