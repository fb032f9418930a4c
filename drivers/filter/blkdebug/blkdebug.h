// SPDX-License-Identifier: MIT
// `blkdebug`: makes chosen requests fail or wait, and asks more of them than its child does.
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

extern const driver_type blkdebug_driver_type;

} // namespace bgfs
