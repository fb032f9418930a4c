// SPDX-License-Identifier: MIT
#include "fuse/mount/mount_options.h"

#include "graph/base/text.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace bgfs {
namespace {

using name_list = std::span<const std::string_view>;

// Passed on: libfuse makes mount flags of them, or hands them to fusermount3.
constexpr std::array<std::string_view, 17> passed_names = {
    "allow_other", "auto_unmount", "default_permissions",
    "dev",         "nodev",        "suid",
    "nosuid",      "exec",         "noexec",
    "sync",        "async",        "dirsync",
    "atime",       "noatime",      "nodiratime",
    "norelatime",  "nonempty"};

// mount(8), fstab, systemd and the kernel's list of mounts speak of these; they mean nothing here.
constexpr std::array<std::string_view, 30> dropped_names = {
    "rw",       "defaults",   "auto",     "noauto",      "nofail",        "_netdev",
    "user",     "nouser",     "users",    "nousers",     "owner",         "noowner",
    "group",    "nogroup",    "relatime", "strictatime", "nostrictatime", "diratime",
    "lazytime", "nolazytime", "silent",   "loud",        "mand",          "nomand",
    "iversion", "noiversion", "user_id",  "group_id",    "rootmode",      "comment"};

// Some of them the command line takes (config/commands/mount.cpp), since they say what to mount.
constexpr std::array<std::string_view, 11> own_names = {
    "ro",        "strict",    "writable", "format",         "allow-references", "export",
    "writeback", "transport", "queues",   "payload-budget", "remount"};

bool contains(name_list list, std::string_view name) {
  return std::ranges::find(list, name) != list.end();
}

result<transport_choice> read_transport(std::string_view option) {
  constexpr std::array<std::string_view, 3> words = {"auto", "uring", "dev"};
  const std::string_view word = option.substr(std::min(option.size(), option.find('=') + 1));
  const auto at = std::ranges::find(words, option.contains('=') ? word : std::string_view());
  if (at == words.end())
    return fail(
        error_kind::invalid_argument,
        "mount option '{}': a transport is auto (io_uring where root has enabled it), uring "
        "or dev",
        option);
  return static_cast<transport_choice>(at - words.begin());
}

result<std::optional<unsigned>> read_queues(std::string_view option) {
  const std::string_view word = option.substr(std::min(option.size(), option.find('=') + 1));
  if (option.contains('=') && word == "auto")
    return std::nullopt;
  unsigned count = 0;
  const auto [end, bad] = std::from_chars(word.data(), word.data() + word.size(), count);
  if (!option.contains('=') || bad != std::errc() || end != word.data() + word.size() ||
      count < 1 || count > mount_options::queues_max)
    return fail(error_kind::invalid_argument,
                "mount option '{}': queues are auto (over io_uring one for each processor) or a "
                "number from 1 to {}",
                option, mount_options::queues_max);
  return count;
}

result<std::string> read_export(std::string_view option) {
  const std::string_view name = option.substr(std::min(option.size(), option.find('=') + 1));
  if (!option.contains('=') || name.empty())
    return fail(error_kind::invalid_argument,
                "mount option '{}' needs the name of an export: export=NAME", option);
  return std::string(name);
}

result<u64> read_payload_budget(std::string_view option) {
  const std::string_view text = option.substr(std::min(option.size(), option.find('=') + 1));
  const result<u64> size = option.contains('=') ? parse_size(text) : result<u64>(0);
  if (!size || *size < payload_budget::total_min || *size > payload_budget::total_max)
    return fail(error_kind::invalid_argument,
                "mount option '{}': the memory for payloads is a size from {}M to {}G, such as {}M",
                option, payload_budget::total_min / MiB, payload_budget::total_max / GiB,
                payload_budget::total_default / MiB);
  return *size;
}

} // namespace

result<mount_options> parse_mount_options(std::span<const std::string> given) {
  mount_options options;
  for (const std::string& option : given) {
    const std::string_view name = std::string_view(option).substr(0, option.find('='));
    if (option.empty() || contains(dropped_names, name) || name.starts_with("x-") ||
        name.starts_with("X-"))
      continue;
    if (option == "ro") {
      options.is_read_only = true;
    } else if (option == "strict") {
      options.is_strict = true;
    } else if (name == "transport") {
      BGFS_TRY(options.transport, read_transport(option));
    } else if (name == "queues") {
      BGFS_TRY(options.queues, read_queues(option));
    } else if (option == "writeback") {
      options.is_writeback = true;
    } else if (name == "export") {
      BGFS_TRY(options.only_export, read_export(option));
    } else if (name == "payload-budget") {
      BGFS_TRY(options.payload_budget, read_payload_budget(option));
    } else if (contains(passed_names, option)) {
      options.allows_others = options.allows_others || option == "allow_other";
      // default_permissions is always on; nonempty is how libfuse 3 behaves.
      if (option != "default_permissions" && option != "nonempty")
        options.for_kernel.push_back(option);
    } else if (name == "max_read" && option != name) {
      options.for_kernel.push_back(option);
    } else {
      std::vector<std::string_view> known(passed_names.begin(), passed_names.end());
      known.insert(known.end(), own_names.begin(), own_names.end());
      known.insert(known.end(), {"rw", "max_read"});
      return fail(error_kind::invalid_argument,
                  "mount option '{}' is not known; there are {}, and those of mount(8) and FUSE{}",
                  option, fmt::join(own_names, ", "), did_you_mean(name, known));
    }
  }
  if (options.is_writeback && options.only_export.empty())
    return fail(error_kind::invalid_argument,
                "mount option 'writeback' needs 'export=NAME': the kernel holds back writes, and "
                "owns the lengths, of all files of a mount or of none, so that only a mount of one "
                "root can have it");
  return options;
}

} // namespace bgfs
