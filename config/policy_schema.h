// SPDX-License-Identifier: MIT
// `references:` of a graph file.
#pragma once

#include "config/references.h"

namespace bgfs {

// Without the key, headers may lead to files below the directory of the graph file. `whole` is the
// graph file's content, `path` its name.
[[nodiscard]] result<reference_policy> parse_reference_policy(const value& whole,
                                                              const std::string& path);

} // namespace bgfs
