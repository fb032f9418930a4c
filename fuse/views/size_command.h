// SPDX-License-Identifier: MIT
// What may be written to `size`.
#pragma once

#include "graph/base/result.h"

namespace bgfs {

struct size_command {
  u64 length = 0;
  bool may_shrink = false;
};

// `current` is the length now, for "+1G".
[[nodiscard]] result<size_command> parse_size_command(std::string_view text, u64 current);

} // namespace bgfs
