// SPDX-License-Identifier: MIT
// The answer to "where does this range live": what reads, block status, maps and jobs all use.
#pragma once

#include "graph/base/ints.h"

#include <string_view>

namespace bgfs {

class edge;

enum class extent_kind : u8 {
  data,        // stored as it is, at `offset` of `where`
  zero,        // reads as zeroes; `where` is set if space is allocated for it all the same
  unallocated, // not in this layer: the backing node answers, or zeroes where there is none
  encoded,     // compressed or encrypted: only the driver's readable face can read it
  end,         // at or past the end of the node; length is 0
};

struct extent {
  u64 length = 0; // from the offset asked about; may reach past the range asked about
  extent_kind kind = extent_kind::unallocated;
  const edge* where = nullptr; // the child that holds it; null: no offset is known
  u64 offset = 0;              // in the child, of the first byte
  // The child may know that this data is a hole (metadata preallocation): status asks it.
  bool is_recursive = false;
  // This node only passes the child's bytes through (raw, filters): status is what the child says.
  bool is_passthrough = false;
  bool is_compressed = false;
  // Of zeroes with a place: data belong there, but none were written yet. Status says both.
  bool is_unwritten = false;
  // Of data: a write may overwrite the bytes where they are, without asking the driver.
  bool may_overwrite = false;
};

[[nodiscard]] std::string_view to_string(extent_kind kind);

} // namespace bgfs
