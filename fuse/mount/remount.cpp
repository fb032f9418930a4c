// SPDX-License-Identifier: MIT
#include "fuse/mount/remount.h"

#include "config/mount_client.h"
#include "config/reload_request.h"
#include "fuse/mount/fuse_mounter.h"
#include "fuse/mount/holders.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <sys/mount.h>

namespace bgfs {
namespace {

namespace fs = std::filesystem;

struct named_flag {
  std::string_view name;
  unsigned long flag;
  bool is_set;
};

constexpr std::array flag_names = {
    named_flag{"nosuid", MS_NOSUID, true},
    named_flag{"suid", MS_NOSUID, false},
    named_flag{"nodev", MS_NODEV, true},
    named_flag{"dev", MS_NODEV, false},
    named_flag{"noexec", MS_NOEXEC, true},
    named_flag{"exec", MS_NOEXEC, false},
    named_flag{"sync", MS_SYNCHRONOUS, true},
    named_flag{"async", MS_SYNCHRONOUS, false},
    named_flag{"dirsync", MS_DIRSYNC, true},
    named_flag{"noatime", MS_NOATIME, true},
    named_flag{"atime", MS_NOATIME, false},
    named_flag{"nodiratime", MS_NODIRATIME, true},
    named_flag{"diratime", MS_NODIRATIME, false},
    named_flag{"relatime", MS_RELATIME, true},
    named_flag{"norelatime", MS_RELATIME, false},
    named_flag{"strictatime", MS_STRICTATIME, true},
    named_flag{"nostrictatime", MS_STRICTATIME, false},
};

// What the daemon was started with and cannot change. Those that the kernel lists can be compared.
bool is_fixed(std::string_view name) {
  constexpr std::array<std::string_view, 3> names = {"allow_other", "max_read", "blksize"};
  return std::ranges::find(names, name) != names.end();
}

// Repeated from fstab; what they ask for was done when the mount was made.
bool is_settled(std::string_view name) {
  constexpr std::array<std::string_view, 11> names = {
      "remount",  "transport",    "strict",           "format",
      "writable", "auto_unmount", "allow-references", "default_permissions",
      "export",   "writeback",    "payload-budget"};
  return std::ranges::find(names, name) != names.end();
}

bool has(const std::vector<std::string>& options, std::string_view name) {
  return std::ranges::find(options, name) != options.end();
}

bool take_flag(remount_change& change, std::string_view name) {
  if (name == "ro" || name == "rw") {
    change.is_read_only = name == "ro";
    return true;
  }
  const auto found = std::ranges::find(flag_names, name, &named_flag::name);
  if (found == flag_names.end())
    return false;
  change.flags = found->is_set ? change.flags | found->flag : change.flags & ~found->flag;
  return true;
}

} // namespace

result<remount_change> plan_remount(std::span<const std::string> given, const mount_entry& now,
                                    bool is_all) {
  remount_change change;
  for (const auto* options : {&now.options, &now.super_options})
    for (const std::string& option : *options)
      if (option != "rw") // either of the two lists says ro
        take_flag(change, option);
  change.was_read_only = change.is_read_only;
  if (is_all) // what a new mount has without being told
    change.flags = MS_NOSUID | MS_NODEV;
  std::vector<std::string> others;
  for (const std::string& option : given) {
    const std::string_view name = std::string_view(option).substr(0, option.find('='));
    if (take_flag(change, option) || is_settled(name))
      continue;
    if (!is_fixed(name)) {
      others.push_back(option);
    } else if (!has(now.super_options, option)) {
      return fail(error_kind::unsupported,
                  "mount option '{}' cannot be changed while '{}' is mounted; unmount it and mount "
                  "it again",
                  option, now.directory);
    }
  }
  BGFS_TRY([[maybe_unused]] const mount_options rest, parse_mount_options(others)); // or unknown
  return change;
}

bool is_same_source(const std::string& given, const std::string& mounted) {
  std::error_code problem;
  return given == mounted || fs::absolute(given).lexically_normal() == mounted ||
         (fs::equivalent(given, mounted, problem) && !problem);
}

namespace {

result<> set_kernel_flags(const std::string& directory, const remount_change& change,
                          bool is_read_only) {
  const unsigned long flags = MS_REMOUNT | change.flags | (is_read_only ? MS_RDONLY : 0);
  if (::mount("none", directory.c_str(), nullptr, flags, nullptr) == 0)
    return {};
  if (errno == EBUSY)
    return fail(error_kind::busy, "cannot make '{}' read-only: something in it is open for writing",
                directory);
  if (errno == EPERM)
    return fail(error_kind::permission, "only root may remount '{}'", directory);
  return fail_errno(errno, "cannot remount '{}'", directory);
}

// Writing to .bgfs/reload takes a mount that may be written, so it comes first on the way to
// read-only, and last on the way back. What was done is undone when the other half fails.
result<> carry_out(const mount_client& mount, const remount_change& change) {
  const std::string& directory = mount.directory();
  if (change.was_read_only == change.is_read_only) {
    BGFS_CHECK(set_kernel_flags(directory, change, change.is_read_only));
    return request_reload(mount, "1");
  }
  if (change.is_read_only) {
    BGFS_CHECK(request_reload(mount, "ro"));
    result<> set = set_kernel_flags(directory, change, true);
    if (!set)
      (void)request_reload(mount, "rw");
    return set;
  }
  BGFS_CHECK(set_kernel_flags(directory, change, false));
  result<> reloaded = request_reload(mount, "rw");
  if (!reloaded)
    (void)set_kernel_flags(directory, change, true);
  return reloaded;
}

result<std::string> find_mounted(const remount_request& request, mount_entry& there) {
  std::error_code problem;
  const std::string directory = fs::canonical(request.directory, problem).string();
  if (problem)
    return fail_errno(problem.value(), "cannot remount '{}'", request.directory);
  const auto found = mounted_on(directory);
  if (!found || found->type != mounted_type)
    return fail(error_kind::not_found, "'{}' is no mount of bgfs; mount it first",
                request.directory);
  if (!request.source.empty() && !is_same_source(request.source, found->source))
    return fail(error_kind::invalid_argument, "'{}' shows '{}', not '{}'; unmount it first",
                request.directory, found->source, request.source);
  there = *found;
  return directory;
}

} // namespace

int fuse_mounter::remount(const remount_request& request) {
  mount_entry there;
  const result<std::string> directory = find_mounted(request, there);
  if (!directory) {
    complain(directory.error());
    return mount_status::failure;
  }
  const result<remount_change> change =
      plan_remount(request.options, there, !request.source.empty());
  if (!change) {
    complain(change.error());
    return mount_status::usage;
  }
  const result<mount_client> mount = mount_client::find(*directory);
  const result<> done = mount ? carry_out(*mount, *change) : result<>(fail(mount.error()));
  if (done)
    return mount_status::ok;
  complain(done.error());
  if (done.error().kind() == error_kind::busy)
    for (const std::string& holder : holders_of(*directory))
      complain("  " + holder);
  return done.error().kind() == error_kind::permission ? mount_status::usage
                                                       : mount_status::failure;
}

} // namespace bgfs
