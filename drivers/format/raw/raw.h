// SPDX-License-Identifier: MIT
// raw: the file's bytes are the disk's, or a window of them (`offset`, `size`). It recognises
// nothing: an image is raw only because somebody said so.
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

extern const driver_type raw_driver_type;

} // namespace bgfs
