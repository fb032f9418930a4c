// SPDX-License-Identifier: MIT
// Processors, and which of them threads run on.
#pragma once

#include <vector>

namespace bgfs {

// Those that the calling thread may run on, by number.
[[nodiscard]] std::vector<unsigned> allowed_processors();

// Keeps the calling thread, and those that it starts, on some of them; without effect where that is
// forbidden.
void stay_on(const std::vector<unsigned>& processors);

} // namespace bgfs
