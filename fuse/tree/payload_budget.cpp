// SPDX-License-Identifier: MIT
#include "fuse/tree/payload_budget.h"

#include "graph/io/spawn.h"

#include <algorithm>

namespace bgfs {

bool payload_budget::may_take(const payload_share& share, u64 length) const {
  const u64 free = total_ - held_;
  if (length > free)
    return false;
  return share.held_ == 0 || share.held_ + length <= free - length;
}

void payload_budget::give(payload_share& share, u64 length) {
  share.held_ += length;
  held_ += length;
  held_max_ = std::max(held_max_, held_);
}

void payload_budget::give_back(payload_share& share, u64 length) {
  BGFS_ASSERT(share.held_ >= length && held_ >= length);
  share.held_ -= length;
  held_ -= length;
  serve_waiting();
}

payload_budget::hold payload_budget::try_take(payload_share& share, u64 length) {
  BGFS_ASSERT(length <= total_, "a request is no longer than the smallest budget");
  // Who comes later does not pass those who wait.
  if (!share.waiting_.empty() || !may_take(share, length))
    return {};
  give(share, length);
  return {*this, share, length};
}

task<payload_budget::hold> payload_budget::take(payload_share& share, u64 length) {
  if (hold taken = try_take(share, length))
    co_return taken;
  payload_share::waiter me{.length = length, .granted = {}, .place = {}};
  if (share.waiting_.empty())
    queue_.push_back(&share);
  me.place = share.waiting_.insert(share.waiting_.end(), &me);
  waiting_count_++;
  const result<> waited = co_await as_result(me.granted.wait());
  if (me.granted.is_set()) { // what was given is taken, or given back if nobody wants it any more
    hold taken(*this, share, length);
    co_await waited;
    co_return taken;
  }
  share.waiting_.erase(me.place);
  waiting_count_--;
  if (share.waiting_.empty())
    std::erase(queue_, &share);
  serve_waiting(); // who stood behind may need less
  co_await waited;
  co_return hold();
}

bool payload_budget::serve_first(payload_share& share) {
  payload_share::waiter& first = *share.waiting_.front();
  if (!may_take(share, first.length))
    return false;
  give(share, first.length);
  share.waiting_.pop_front();
  waiting_count_--;
  first.granted.set();
  return true;
}

// Each share that waits gets one turn, and another one as long as anybody got something.
void payload_budget::serve_waiting() {
  std::size_t refused = 0;
  while (refused < queue_.size()) {
    payload_share* const share = queue_.front();
    queue_.pop_front();
    refused = serve_first(*share) ? 0 : refused + 1;
    if (!share->waiting_.empty())
      queue_.push_back(share);
  }
}

} // namespace bgfs
