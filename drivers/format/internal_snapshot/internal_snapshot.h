// SPDX-License-Identifier: MIT
// One internal snapshot of an image that is open, as a read-only disk of its own: what is written
// to the image meanwhile does not show. Any number may be open, also of one snapshot; while one is,
// its snapshot cannot be deleted, and the image keeps its driver and its backing node.
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

extern const driver_type internal_snapshot_driver_type;

} // namespace bgfs
