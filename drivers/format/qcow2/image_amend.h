// SPDX-License-Identifier: MIT
// Changing the key slots of an image that is encrypted with LUKS (reference sections 3.7, 3.16).
#pragma once

#include "graph/base/option_schema.h"

namespace bgfs::qcow2 {

extern const option_schema amend_schema;

} // namespace bgfs::qcow2
