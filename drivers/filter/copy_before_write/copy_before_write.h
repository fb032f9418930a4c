// SPDX-License-Identifier: MIT
// `copy-before-write`: before anything of its child is overwritten for the first time, the old
// bytes go to `target`. So both together hold what the child held when the filter was opened, and
// `snapshot-access` shows it as a disk (reference section 4.8).
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

extern const driver_type copy_before_write_driver_type;

} // namespace bgfs
