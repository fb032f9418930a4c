// SPDX-License-Identifier: MIT
// Names of types of partitions. Those of GPT are of the UEFI Specification, of the Discoverable
// Partitions Specification (https://uapi-group.org) and of the systems that made them; those of MBR
// are what partitioning tools have agreed on. Short, so that they can stand in a path.
#pragma once

#include <string_view>

namespace bgfs {

// Of partition::type; "" if it is not known.
[[nodiscard]] std::string_view partition_type_name(std::string_view type);

} // namespace bgfs
