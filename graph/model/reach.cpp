// SPDX-License-Identifier: MIT
#include "graph/model/reach.h"

#include "graph/model/node.h"

#include <algorithm>

namespace bgfs {

std::vector<node*> nodes_below(node& top) {
  std::vector<node*> found = {&top};
  const auto visit = [&](const auto& self, const node& n) -> void {
    for (const auto& e : n.children()) {
      if (std::ranges::find(found, &e->child()) != found.end())
        continue;
      found.push_back(&e->child());
      self(self, e->child());
    }
  };
  visit(visit, top);
  return found;
}

} // namespace bgfs
