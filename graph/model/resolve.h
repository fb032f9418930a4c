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
  static constexpr std::size_t nodes_max = 200; // a longer way is not resolved
  std::array<node*, nodes_max> way; // top first; without a trip to the heap for each request
  std::size_t node_count = 0;

  [[nodiscard]] std::span<node* const> nodes() const { return std::span(way).first(node_count); }
};

// nullopt: it takes I/O to find out, or somebody on the way must see each request. `range` lies
// inside the node and is not empty. Does not suspend.
[[nodiscard]] std::optional<resolution> resolve_extent(node& top, byte_range range);

} // namespace bgfs
