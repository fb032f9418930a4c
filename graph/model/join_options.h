// SPDX-License-Identifier: MIT
// What a node that is reopened with some options goes on with: those given now, and of those given
// before what they leave standing (reference section 1.4).
#pragma once

#include "graph/model/driver.h"

namespace bgfs {

// Nested maps of options, as YAML has them; what neither says has its default again. Keys are
// dotted or nested. Children and the like are treated as any other key.
[[nodiscard]] value join_options(const driver_type& type, const value& before, const value& next);

// The members of a map by dotted name; maps become their members.
[[nodiscard]] flat_options flatten_options(const value& nested);
[[nodiscard]] bool has_option(const flat_options& all, std::string_view name);

} // namespace bgfs
