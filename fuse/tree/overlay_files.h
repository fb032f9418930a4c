// SPDX-License-Identifier: MIT
// The files of external snapshots: images that hold what was written since, each over another.
#pragma once

#include "fuse/tree/exported_root.h"
#include "graph/base/value.h"

namespace bgfs {

// One that was made and that no graph knows yet.
struct overlay_file {
  std::string node_name;
  std::string path;
  std::string below;          // the node that it is over
  u64 length = 0;             // of its disk
  bool follows_length = true; // `below` is in use, and may get another length meanwhile
  value definition;           // of its node, as a graph file has it
};

// An empty qcow2 image of that length over `below`, in the directory of the root: nobody had its
// name, and it is owned and may be read as the image below is. `nth`: how many of its group were
// made before, whose node names are not known to anybody either. By who holds
// mount_state::looking; it is durable when this returns.
task<overlay_file> make_overlay_file(mount_state& mount, const exported_root& root, node& below,
                                     u64 length, std::size_t nth);
// Best effort: what is left of them is a file that nobody knows. Blocks.
void remove_overlay_files(std::span<const overlay_file> files);

} // namespace bgfs
