// SPDX-License-Identifier: MIT
// null-co: a disk of any length without a medium. Writes vanish, reads give zeroes. For measuring
// and for tests.
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

extern const driver_type null_co_driver_type;

} // namespace bgfs
