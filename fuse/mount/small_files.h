// SPDX-License-Identifier: MIT
// Reading files of /proc, /sys and of a mount's own control directory. Blocks.
#pragma once

#include <optional>
#include <string>

namespace bgfs {

// All of it, up to a megabyte; nullopt: it cannot be read.
[[nodiscard]] std::optional<std::string> read_small_file(const std::string& path);
// Where a symbolic link points; nullopt: it is none, or cannot be read.
[[nodiscard]] std::optional<std::string> read_link(const std::string& path);

} // namespace bgfs
