// SPDX-License-Identifier: MIT
// Where a graph is to be mounted: on a directory, or one root of it on a regular file.
#pragma once

#include "config/graph_config.h"
#include "fuse/mount/mount_point.h"

namespace bgfs {

struct mount_place {
  std::string path; // absolute, without symbolic links, as the kernel lists it
  bool is_file = false;
};

// A mount of ours whose process has died is taken away first, and that is said. Blocks.
[[nodiscard]] result<mount_place> find_place(const std::string& given);

// A file that is what would be mounted - the graph file, an image - cannot be the place: the mount
// would hide it.
[[nodiscard]] result<> require_other_file(const mount_place& place, const graph_config& config);

// Of a graph's exports the one that a file shows; `wanted` is what -o export=NAME says, "" if
// nothing.
[[nodiscard]] result<std::string> choose_export(const graph_config& config,
                                                const std::string& wanted, const std::string& file);

// Whether `place` shows `source` - of a file: this export of it - already. An error: a file that
// shows something else of ours.
[[nodiscard]] result<bool> is_mounted_already(const mount_place& place, const std::string& source,
                                              const std::string& only_export);

} // namespace bgfs
