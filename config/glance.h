// SPDX-License-Identifier: MIT
// An image seen from outside: how long its disk is and what the host spends on it, found by looking
// at the file, without opening the image - no lock, no memory, nothing written.
#pragma once

#include "config/graph_config.h"

#include <span>

namespace bgfs {

struct image_glance {
  u64 length = 0;    // of the disk
  u64 allocated = 0; // bytes the host spends on its file
  std::string path;  // of its file
};

// nullopt where it takes more than a look at one file: networks, drivers that cannot tell from the
// first bytes, an image that will not open. No path is followed into the directories `kept_out`.
// Blocks.
[[nodiscard]] std::optional<image_glance> glance_at(const graph_config& config,
                                                    const export_spec& root,
                                                    std::span<const std::string> kept_out);

} // namespace bgfs
