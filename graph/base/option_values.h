// SPDX-License-Identifier: MIT
// From what was written to what it means, one option at a time; for option_schema.cpp.
#pragma once

#include "graph/base/option_schema.h"

namespace bgfs {

// The error continues "option 'size' ...": "is a size, not a list".
[[nodiscard]] result<option_data> read_option(const option& o, const value& given);

// As it would be written in YAML, so that reading it again gives the same.
[[nodiscard]] value write_option(option_type type, const option_data& data);

} // namespace bgfs
