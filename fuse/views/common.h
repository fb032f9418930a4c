// SPDX-License-Identifier: MIT
// What the views share.
#pragma once

#include "fuse/tree/view.h"
#include "graph/base/value.h"

#include <fmt/format.h>

namespace bgfs {

// The node a view is about: its own, or the live image of its root, filters left aside.
[[nodiscard]] node& shown_node(const view_subject& subject);

// "key: value\n".
template<class T>
void add_line(std::string& text, std::string_view key, const T& what) {
  fmt::format_to(std::back_inserter(text), "{}: {}\n", key, what);
}

[[nodiscard]] inline std::string_view yes_or_no(bool b) {
  return b ? "yes" : "no";
}

// JSON for people and programs: indented, a newline at the end.
[[nodiscard]] std::string json_text(const value& v);

// Every node of the graph as a map: its driver, host path, children, and so on.
[[nodiscard]] task<value> describe_graph(mount_state& mount);

} // namespace bgfs
