// SPDX-License-Identifier: MIT
// One internal snapshot of several images at one instant, of one graph or of several.
#pragma once

#include "graph/model/graph.h"

namespace bgfs {

// Returns the ids, in the order of `images`, of which each is there once and has its snapshots
// itself (find_snapshottable). What was answered before is in all of them, and what begins later in
// none: all images are drained together, on however many loops they live, before the first is
// touched. All are made or none: if one fails, those before it are deleted again; where that fails,
// too, the error says which are left. The graphs keep their nodes where they are meanwhile.
[[nodiscard]] task<std::vector<std::string>> create_snapshots(std::vector<node*> images,
                                                              new_snapshot wanted);

} // namespace bgfs
