// SPDX-License-Identifier: MIT
// The limits of a node, as `bgfs info --limits` shows them.
#pragma once

#include "graph/base/limits.h"
#include "graph/base/value.h"

namespace bgfs {

// Keys as of the peer's BlockLimitsInfo; what there is no limit of is left out.
[[nodiscard]] value limits_value(const block_limits& limits);

// What info shows of it for people: a line each, behind "Block limits:".
[[nodiscard]] std::string render_limits(const value& limits);

} // namespace bgfs
