// SPDX-License-Identifier: MIT
// The qcow2 format: drivers/format/qcow2/README.md.
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

extern const driver_type qcow2_driver_type;
extern const driver_type qcow2_increment_driver_type; // increment/increment.cpp

} // namespace bgfs
