// SPDX-License-Identifier: MIT
// How much space an image will take: before it is made, to make room for it.
#pragma once

#include "graph/model/graph.h"

namespace bgfs {

struct measured_image {
  u64 required = 0;           // bytes of the file right after the source is copied into it
  u64 fully_allocated = 0;    // when every byte of the disk was written
  std::optional<u64> bitmaps; // more, with the source's persistent bitmaps; nullopt: it has or
                              // can have none
};

// An image that holds nothing but what it is made with.
[[nodiscard]] measured_image measure_empty(const measured_space& space);

// One that `source` is copied into. What reads as zeroes, or is not allocated anywhere in the
// chain, takes no space.
task<measured_image> measure_copy(const measured_space& space, node& source);

// What bitmaps of these granularities and names on a disk of `length` bytes take in clusters of
// `unit` bytes: all their bits, a table each, and the directory.
struct measured_bitmap {
  u64 granularity = 0;
  u64 name_length = 0;
};
[[nodiscard]] u64 measure_bitmaps(u64 unit, u64 length, std::span<const measured_bitmap> all);

} // namespace bgfs
