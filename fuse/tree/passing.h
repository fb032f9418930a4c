// SPDX-License-Identifier: MIT
// Letting the requests of a root pass the breakpoints of tests (graph/model/debugging.h).
#pragma once

#include "fuse/tree/exported_root.h"

namespace bgfs {

// While the result lives, no breakpoint below the root keeps its requests: for who waits for them.
// nullopt: it is not open, and has none.
task<std::optional<breakpoints_off>> let_requests_pass(exported_root& root);
task<std::vector<breakpoints_off>> let_requests_pass(std::vector<root_pointer> roots);

} // namespace bgfs
