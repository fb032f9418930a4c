// SPDX-License-Identifier: MIT
// Writes that have host clusters but are not linked into the L2 table yet. Until they are, nobody
// else may allocate for, zero or discard the same guest clusters (Q7): they would not see what is
// coming, and the loser's clusters would be lost or, worse, linked over the winner's.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/io/wait_queue.h"

#include <list>
#include <optional>

namespace bgfs::qcow2 {

class allocation_list {
public:
  // A member for as long as it lives.
  class member {
  public:
    member(allocation_list& list, byte_range guest_clusters)
        : list_(list), at_(list.members_.insert(list.members_.end(), guest_clusters)) {}
    ~member() {
      list_.members_.erase(at_);
      list_.ended_.wake_all();
    }
    member(const member&) = delete;
    member& operator=(const member&) = delete;

  private:
    allocation_list& list_;
    std::list<byte_range>::iterator at_;
  };

  // The first guest byte at or after range.offset that a member has; nullopt: none in the range.
  [[nodiscard]] std::optional<u64> first_conflict(byte_range range) const {
    std::optional<u64> first;
    for (const byte_range m : members_)
      if (m.overlaps(range) && (!first || m.offset < *first))
        first = m.offset;
    if (first && *first < range.offset)
      first = range.offset;
    return first;
  }
  // Waits until some member has gone.
  [[nodiscard]] detail::wait_await ended() { return ended_.wait(); }
  [[nodiscard]] bool is_empty() const { return members_.empty(); }

private:
  std::list<byte_range> members_;
  wait_queue ended_;
};

} // namespace bgfs::qcow2
