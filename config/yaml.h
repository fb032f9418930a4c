// SPDX-License-Identifier: MIT
// YAML text to values that know where they stand. JSON is YAML, so this reads json: names too.
//
// Plain words are text, except true, false, null and numbers as JSON writes them (and 0x...): what
// `on`, `yes` or `0640` mean is decided by the schema that asks for them. Everything hostile is
// bounded: length, depth, number of values after aliases are expanded.
#pragma once

#include "graph/base/result.h"
#include "graph/base/value.h"

namespace bgfs {

inline constexpr std::size_t yaml_length_max = 4 * MiB;
inline constexpr unsigned yaml_depth_max = 64;
inline constexpr unsigned yaml_values_max = 200'000;

// One document; empty text is null. A member of a map is marked where its key stands, everything
// else where it begins. Keys are text and not repeated within their map. `file` is named in marks
// and messages; null: the text comes from no file. Errors begin with file:line:column.
[[nodiscard]] result<value> parse_yaml(std::string_view text,
                                       std::shared_ptr<const std::string> file = nullptr);

// The same for what JSON allows beyond YAML: characters escaped as surrogate pairs.
[[nodiscard]] result<value> parse_json(std::string_view text,
                                       std::shared_ptr<const std::string> file = nullptr);

// Reads the file and parses it; it is called `path` in marks and messages.
[[nodiscard]] result<value> read_yaml(const std::string& path);

} // namespace bgfs
