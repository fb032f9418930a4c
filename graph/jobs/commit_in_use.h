// SPDX-License-Identifier: MIT
// Committing an overlay that is in use.
#pragma once

#include "graph/jobs/commit.h"

namespace bgfs {

// As commit_layers; then the overlay, which `request.top` shows, gives up what its base has now.
// What it shows is the same all the time. error_kind::busy, and the overlay keeps its content, when
// somebody has written to it meanwhile: nothing is lost, and the base has what was there before.
// Everything but its length and options may be changed by others meanwhile; the edges between the
// two are frozen.
task<void> commit_in_use(commit_request request, node& overlay);

} // namespace bgfs
