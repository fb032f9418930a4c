// SPDX-License-Identifier: MIT
// Where bytes of a node live in the end: through every layer, filter and backing node, down to a
// file - by what drivers can say at once, on the way that reads take (read_path.cpp).
#pragma once

#include "graph/model/lease.h"

namespace bgfs {

struct resolution {
  u64 length = 0; // from the beginning of the range asked about, and inside it
  bool is_zero = false;
  bool may_write = false;
  u64 offset = 0; // in the file, of the first byte
  direct_access file;
  std::vector<node*> nodes; // on the way, top first
};

// nullopt: it takes I/O to find out, or somebody on the way must see each request. `range` lies
// inside the node and is not empty. Does not suspend.
[[nodiscard]] std::optional<resolution> resolve_extent(node& top, byte_range range);

} // namespace bgfs
