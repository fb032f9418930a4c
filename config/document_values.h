// SPDX-License-Identifier: MIT
// Reading the parts of a graph file that no schema describes.
#pragma once

#include "graph/base/result.h"
#include "graph/base/value.h"

namespace bgfs {

// A mistake in a file: the place comes first.
template<class... Args>
[[nodiscard]] std::unexpected<error> wrong(const source_mark& mark,
                                           fmt::format_string<Args...> format, Args&&... args) {
  return fail(error_kind::invalid_argument, "{}{}", mark.prefix(),
              fmt::format(format, std::forward<Args>(args)...));
}

// The list under a key; null if the key is absent or empty.
[[nodiscard]] result<const value::list*> find_list(const value& owner, std::string_view key);
// The same for a list of texts, none of them empty.
[[nodiscard]] result<std::vector<std::string>> read_texts(const value& owner, std::string_view key);

// `name`, relative to a directory, without '.' and '..'.
[[nodiscard]] std::string absolute_in(const std::string& directory, const std::string& name);

} // namespace bgfs
