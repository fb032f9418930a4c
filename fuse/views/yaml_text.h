// SPDX-License-Identifier: MIT
// Values as YAML in block style, for .bgfs/graph.yaml.
#pragma once

#include "graph/base/value.h"

namespace bgfs {

// Ends with a newline. Text is quoted wherever a reader could take it for something else.
[[nodiscard]] std::string to_yaml(const value& v);

} // namespace bgfs
