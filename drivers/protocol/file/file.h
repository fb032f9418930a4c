// SPDX-License-Identifier: MIT
// Files and block devices of the host. Two descriptions of one driver: `file` opens regular files,
// `host_device` block devices; each refuses the other's.
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

extern const driver_type file_driver_type;
extern const driver_type host_device_driver_type;

} // namespace bgfs
