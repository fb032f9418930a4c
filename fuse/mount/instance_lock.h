// SPDX-License-Identifier: MIT
// One daemon for one graph: a lock (flock(2)) on the graph file itself, so that nothing is left
// behind whatever happens, and containers that share the file exclude each other.
#pragma once

#include "graph/io/file.h"

namespace bgfs {

// Held until the descriptor is closed. error_kind::busy names the process that has it.
[[nodiscard]] result<descriptor> lock_graph_file(const std::string& path);

} // namespace bgfs
