// SPDX-License-Identifier: MIT
// mount -o remount: what may be changed while a mount is there. The kernel's part is done here,
// with mount(2), since it tells no FUSE daemon of it; the rest is a reload.
#pragma once

#include "fuse/mount/mount_point.h"

namespace bgfs {

struct remount_change {
  bool was_read_only = false;
  bool is_read_only = false;
  unsigned long flags = 0; // of mount(2), MS_RDONLY left aside
};

// Pure. `given` is what -o says: all that is to be in force, as mount(8) gathers it from fstab and
// the kernel, or only what is to be different. What takes a new mount is an error unless it is so
// now.
[[nodiscard]] result<remount_change> plan_remount(std::span<const std::string> given,
                                                  const mount_entry& now, bool is_all);

// Whether two names of a source mean the same file.
[[nodiscard]] bool is_same_source(const std::string& given, const std::string& mounted);

} // namespace bgfs
