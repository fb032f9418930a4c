// SPDX-License-Identifier: MIT
// What an image is, as `bgfs info` and the info views show it.
#pragma once

#include "graph/model/node.h"

namespace bgfs {

// How a node would be named on a command line: a host file's name as it was given, that of the file
// below for a format or a filter without options of its own, else "json:{...}".
[[nodiscard]] std::string filename_of(const node& n);

// The same keys as `qemu-img info --output=json`. `shown_name` is the name to show; empty:
// filename_of. Asks the host for the space that is used, so it may suspend.
task<value> read_info(node& image, std::string shown_name = {});

// One entry for each layer, top first.
task<value> read_info_chain(node& top, std::string shown_name = {});

// The text of `qemu-img info` from what read_info or read_info_chain returned, with a newline at
// the end; layers are separated by an empty line.
[[nodiscard]] std::string render_info(const value& info);

// The part of it about the format: `format-specific`, or "" if that is null.
[[nodiscard]] std::string render_format_specific(const value& specific);

// The JSON of `qemu-img info --output=json`, with a newline at the end.
[[nodiscard]] std::string render_info_json(const value& info);

} // namespace bgfs
