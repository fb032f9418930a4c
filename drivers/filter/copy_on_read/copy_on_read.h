// SPDX-License-Identifier: MIT
// `copy-on-read`: what is read from below the child is stored in the child on the way.
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

extern const driver_type copy_on_read_driver_type;

} // namespace bgfs
