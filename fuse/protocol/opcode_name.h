// SPDX-License-Identifier: MIT
// What the kernel's requests are called, for people who follow them.
#pragma once

#include "graph/base/ints.h"

#include <string_view>

namespace bgfs {

// "read", "getattr"; "other" for one without a name here.
[[nodiscard]] std::string_view opcode_name(u32 opcode);

} // namespace bgfs
