// SPDX-License-Identifier: MIT
// What a dirty bitmap marks, as a read-only disk: the bytes of the bitmap's node where it is dirty,
// zeroes elsewhere. It follows both: what is written shows as soon as it is marked.
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

extern const driver_type bitmap_view_driver_type;

} // namespace bgfs
