// SPDX-License-Identifier: MIT
// The verb `commit` of ctl.
#pragma once

#include "fuse/tree/view.h"

namespace bgfs {

// The live layer of a root gives its content to the one below it, as a job of its own, whose end is
// waited for unless `rest` says otherwise: others go on meanwhile. Not by who holds
// mount_state::looking, which it takes while it looks at nodes only.
task<void> commit_command(view_subject subject, std::string rest);

} // namespace bgfs
