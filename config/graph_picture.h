// SPDX-License-Identifier: MIT
// The open graph as a picture: exports above their nodes, each node above its children. Rendered
// from what graph.json says. SVG without scripts and fonts of its own.
#pragma once

#include "graph/base/value.h"

namespace bgfs {

// More nodes than that are counted, not drawn.
inline constexpr std::size_t drawn_nodes_max = 500;

// `graph`: "exports" with name, node-name, state, writable; "nodes" with node-name, driver,
// read-only, filename, permissions, children.
[[nodiscard]] std::string graph_svg(const value& graph);

} // namespace bgfs
