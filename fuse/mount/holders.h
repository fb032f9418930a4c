// SPDX-License-Identifier: MIT
// Who keeps a directory tree in use.
#pragma once

#include <string>
#include <vector>

namespace bgfs {

// One line for each: "process 123 (cat) has DIR/web open", "loop0 is backed by DIR/web". Only what
// this user may see. Blocks.
[[nodiscard]] std::vector<std::string> holders_of(const std::string& directory);

} // namespace bgfs
