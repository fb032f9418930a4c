// SPDX-License-Identifier: MIT
// What two statuses say about each other, for jobs that look at two disks side by side.
#pragma once

#include "graph/model/node.h"

namespace bgfs {

// Reads as zeroes, and that is known; nothing is stored anywhere in the chain, or zeroes are.
[[nodiscard]] inline bool is_known_zero(const block_status& s) {
  return s.is_zero || !s.is_allocated;
}

// Whether both disks show the same bytes of one file of the host. Of two nodes that it was asked
// about last it remembers whether they are one file; asking about others looks, which blocks.
class same_file_check {
public:
  [[nodiscard]] bool operator()(const block_status& a, const block_status& b);

private:
  const node* last_[2] = {};
  bool are_one_file_ = false;
};

} // namespace bgfs
