// SPDX-License-Identifier: MIT
// `snapshot-access`: the instant that a filter below keeps, as a read-only disk. While it is open
// the filter stays where it is.
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

extern const driver_type snapshot_access_driver_type;

} // namespace bgfs
