// SPDX-License-Identifier: MIT
// One entry of `exports:` in a graph file.
#pragma once

#include "config/graph_config.h"

namespace bgfs {

extern const option_schema export_options;

struct parsed_export {
  export_spec root;
  source_mark writable_mark; // where `writable` stands
  source_mark node_mark;     // where `node-name` stands
  source_mark iothread_mark; // where `iothread` stands
  source_mark cache_mark;    // where `cache` stands
};

// `directory` is that of the file it stands in.
[[nodiscard]] result<parsed_export> parse_export(const value& given, const std::string& directory);
// The entry as it would be written, defaults included.
[[nodiscard]] value write_export(const export_spec& root);

// What may be the name of a root: its control directory is NAME.d beside it.
inline constexpr std::size_t root_name_length_max = 240;
[[nodiscard]] result<> check_root_name(std::string_view name);

} // namespace bgfs
