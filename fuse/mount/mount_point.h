// SPDX-License-Identifier: MIT
// Mounting and unmounting, through libfuse: by mount(2) as root (also in a user namespace), through
// fusermount3 as an ordinary user. Everything blocks.
#pragma once

#include "fuse/mount/mount_options.h"

#include <memory>
#include <optional>

struct fuse_session;

namespace bgfs {

// A mount as the kernel lists it.
struct mount_entry {
  std::string directory;
  std::string type;                            // "fuse.bgfs"
  std::string source;                          // as it was mounted: the graph file
  std::vector<std::string> options = {};       // of this place: ro, nosuid, ...
  std::vector<std::string> super_options = {}; // of the file system: ro, allow_other, ...
  std::string device = {}; // "0:45"; the same where one file system is bound to several places
};

inline constexpr std::string_view mounted_type = "fuse.bgfs";

// Pure: the text of /proc/self/mountinfo.
[[nodiscard]] std::vector<mount_entry> parse_mountinfo(std::string_view text);
[[nodiscard]] std::vector<mount_entry> list_mounts();
// What is mounted last on exactly this directory; nullopt: nothing.
[[nodiscard]] std::optional<mount_entry> mounted_on(const std::string& directory);

// Whether a mount is there whose process has died. Asked with statfs(2), which always goes to the
// process: attributes of the mount point may be in the kernel still.
[[nodiscard]] bool is_dead_mount(const std::string& directory);

class mount_session {
public:
  // Mounts `source` on `directory`. The kernel's first request waits on fd() when it returns.
  [[nodiscard]] static result<std::unique_ptr<mount_session>>
  mount(const std::string& source, const std::string& directory, const mount_options& options);
  // Closes the descriptor: whoever still has something open there gets ENOTCONN. Does not unmount.
  ~mount_session();
  mount_session(const mount_session&) = delete;
  mount_session& operator=(const mount_session&) = delete;

  [[nodiscard]] int fd() const;
  [[nodiscard]] const std::string& directory() const { return directory_; }

private:
  mount_session(fuse_session* session, std::string directory)
      : session_(session), directory_(std::move(directory)) {}
  fuse_session* session_;
  std::string directory_;
};

enum class unmount_mode : unsigned char {
  if_unused, // fails with error_kind::busy while something is open there
  lazily,    // gone from the tree at once
};
[[nodiscard]] result<> unmount(const std::string& directory, unmount_mode mode);

} // namespace bgfs
