// SPDX-License-Identifier: MIT
// null-co, null-aio: a disk of any length without a medium. Writes vanish, reads give zeroes. For
// measuring and for tests. The two names are of one driver; definitions in use have either.
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

extern const driver_type null_co_driver_type;
extern const driver_type null_aio_driver_type;

} // namespace bgfs
