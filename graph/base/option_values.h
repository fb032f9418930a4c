// SPDX-License-Identifier: MIT
// From what was written to what it means, one option at a time; for option_schema.cpp.
#pragma once

#include "graph/base/option_schema.h"

namespace bgfs {

// The error continues "option 'size' ...": "is a size, not a list".
[[nodiscard]] result<option_data> read_option(const option& o, const value& given);

// The members of a list, or of a map of 0, 1, 2, ...; the error continues "option 'x' ...".
[[nodiscard]] result<std::vector<value>> list_members(const value& given);

// As it would be written in YAML, so that reading it again gives the same.
[[nodiscard]] value write_option(option_type type, const option_data& data);

} // namespace bgfs
