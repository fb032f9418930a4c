// SPDX-License-Identifier: MIT
// Committing an overlay that is in use, also by those who write to it.
#pragma once

#include "graph/jobs/commit.h"

namespace bgfs {

// What `overlay`, which `request.top` shows, holds goes down into the base, as by commit_layers,
// and then the overlay gives it up: what it shows is the same all the time. What is written
// meanwhile is copied again, pass after pass, until so little is left that requests can wait for
// it; somebody who writes faster than this copies is held back, unless the job has a speed. A job
// that waits to be completed goes on copying what is written until it is.
//
// At every instant, whatever fails, and if the process ends, the overlay reads as before: it gives
// up what it holds only when the base has all of it, durably. A cancelled commit leaves a base that
// has some of what the overlay holds, too.
//
// `request.control` is the job. Its name is told to whoever is refused meanwhile: the edges between
// the two are frozen, and everything but bitmaps is forbidden to both nodes.
task<void> commit_in_use(commit_request request, node& overlay);

} // namespace bgfs
