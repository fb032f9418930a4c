// SPDX-License-Identifier: MIT
// Waiting for requests that a breakpoint may keep (face debuggable).
#pragma once

#include <memory>
#include <vector>

namespace bgfs {

class node;

// While it lives, breakpoints at `top` and below it keep nobody, and whom they kept goes on. Who
// closes nodes or waits for requests in flight has one: nobody may be there to resume them. It may
// outlive the nodes.
class breakpoints_off {
public:
  explicit breakpoints_off(node& top);

private:
  std::vector<std::shared_ptr<const void>> tokens_;
};

} // namespace bgfs
