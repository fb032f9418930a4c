// SPDX-License-Identifier: MIT
// What the pictures share: text that may stand in SVG.
#pragma once

#include <string>
#include <string_view>

namespace bgfs {

// With what XML cannot hold escaped or replaced, and cut to `length_max` characters, if not 0, with
// an ellipsis.
[[nodiscard]] std::string svg_text(std::string_view text, std::size_t length_max = 0);

} // namespace bgfs
