// SPDX-License-Identifier: MIT
// New qcow2 images (reference sections 1.1 and 3.14).
#pragma once

#include "graph/model/driver.h"

namespace bgfs::qcow2 {

extern const option_schema create_schema;

// Writes an empty image of request.length bytes (rounded up to 512) into request.file.
task<void> create_image(create_request request);
[[nodiscard]] result<std::vector<new_part>> created_parts(const options& given);
[[nodiscard]] result<> takes_compressed(const options& given);

} // namespace bgfs::qcow2
