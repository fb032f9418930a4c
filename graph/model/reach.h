// SPDX-License-Identifier: MIT
// What edges lead to, downwards.
#pragma once

#include <vector>

namespace bgfs {

class node;

// The node and every node below it, each once, the top first.
[[nodiscard]] std::vector<node*> nodes_below(node& top);

} // namespace bgfs
