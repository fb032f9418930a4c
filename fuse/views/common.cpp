// SPDX-License-Identifier: MIT
#include "fuse/views/common.h"

namespace bgfs {

node& shown_node(const view_subject& subject) {
  if (subject.target != nullptr)
    return *subject.target;
  const auto layers = subject.root->layers();
  BGFS_ASSERT(!layers.empty(), "a view that needs a medium was opened without one");
  return *layers.front();
}

std::string json_text(const value& v) {
  return to_json(v, 4) + "\n";
}

} // namespace bgfs
