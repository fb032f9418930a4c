// SPDX-License-Identifier: MIT
// Option values that several commands take.
#pragma once

#include "graph/base/result.h"
#include "graph/model/faces.h"

namespace bgfs {

// "human" or "json".
[[nodiscard]] result<> take_output_format(const std::string& given, bool& is_json);
[[nodiscard]] result<> take_size(const std::string& given, u64& into);
// "off", "metadata", "falloc" or "full".
[[nodiscard]] result<> take_preallocation(const std::string& given, preallocation& into);

} // namespace bgfs
