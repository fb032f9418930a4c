// SPDX-License-Identifier: MIT
// The verb `check` of ctl, whose outcome is in last-check.
#pragma once

#include "fuse/tree/view.h"

namespace bgfs {

// `rest` is what follows the verb: "", "repair=leaks".
task<void> check_command(view_subject subject, std::string rest);

} // namespace bgfs
