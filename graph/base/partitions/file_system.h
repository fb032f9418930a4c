// SPDX-License-Identifier: MIT
// What a partition holds, by the marks that file systems and containers leave at known places, and
// which program reads it without the kernel's help.
#pragma once

#include "graph/base/partitions/disk_sample.h"
#include "graph/base/result.h"

#include <string_view>

namespace bgfs {

struct file_system {
  std::string_view name;   // "ext4", as libblkid calls it
  std::string_view driver; // a FUSE file system to try: "fuse2fs"; "" if none is known
};

// nullptr: nothing that is known here. `place` lies inside the disk. At most three reads of a few
// KiB.
[[nodiscard]] sampled<const file_system*> find_file_system(const disk_sample& disk,
                                                           byte_range place);

} // namespace bgfs
