// SPDX-License-Identifier: MIT
// What a job forbids others to do to a node as a whole while it works on it.
#pragma once

#include "graph/jobs/job.h"
#include "graph/model/node.h"

namespace bgfs {

// As long as it lives, on the loop of the node, which outlives it.
class [[nodiscard]] blocked_node {
public:
  blocked_node(node& which, node_operation_set forbidden, const job& by)
      : node_(which),
        blocker_(which.blockers().add(
            forbidden, fmt::format("job '{}' works on it; wait for its end, or cancel it "
                                   "(.bgfs/jobs/{}/cancel)",
                                   by.id(), by.id()))) {}
  ~blocked_node() { node_.blockers().remove(blocker_); }
  blocked_node(const blocked_node&) = delete;
  blocked_node& operator=(const blocked_node&) = delete;

private:
  node& node_;
  operation_blockers::token blocker_;
};

} // namespace bgfs
