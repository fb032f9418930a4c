// SPDX-License-Identifier: MIT
// What an open node is called, so that whoever is given the name opens what this node shows: names
// that go into image headers, and definitions that can be loaded again (reference section 1.4).
//
// A plain name is enough where opening it, with the node's driver, makes the same graph: a protocol
// node without options that decide what is seen, or a format over one, without such options, whose
// children are those it finds by itself. Everything else is called json:{...}, with all that
// decides what is seen ("strong" options) and all children that were not found that way.
#pragma once

#include "graph/model/node.h"

namespace bgfs {

// The plain name, absolute; empty if there is none.
[[nodiscard]] std::string exact_filename(const node& n);

// Driver, strong options, children: what json: holds.
[[nodiscard]] value full_open_options(const node& n);

// The plain name, or "json:{...}".
[[nodiscard]] std::string canonical_name(const node& n);

// What an image above `n` has to say in its header to have it as its backing file.
[[nodiscard]] image_reference reference_to(const node& n);

// Where relative names in the header of `n` begin: a path with a slash at its end.
[[nodiscard]] result<std::string> directory_name(const node& n);

// Whether `n` has another backing child than its header would lead to, or none although the header
// names one.
[[nodiscard]] bool is_backing_overridden(const node& n);

// The node as a graph file would define it: every option that was given, children in place or by
// name as they were opened, `backing` where it is not what the header says, or null.
[[nodiscard]] value definition_of(const node& n);

} // namespace bgfs
