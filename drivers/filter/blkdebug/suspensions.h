// SPDX-License-Identifier: MIT
// The breakpoints of a blkdebug node and the requests that they keep.
#pragma once

#include "graph/io/sync.h"
#include "graph/model/faces.h"

#include <atomic>
#include <functional>
#include <list>

namespace bgfs::blkdebug {

class suspensions {
public:
  // Told of each request that is kept or let go.
  enum class change : u8 { suspended, resumed };
  using listener = std::function<void(change, const debug_breakpoint&)>;
  explicit suspensions(listener told) : told_(std::move(told)) {}

  void set(debug_breakpoint wanted) { breakpoints_.push_back(std::move(wanted)); }
  bool remove(std::string_view tag);
  bool resume(std::string_view tag);
  [[nodiscard]] bool is_suspended(std::string_view tag) const;
  [[nodiscard]] std::shared_ptr<const void> let_all_pass();
  [[nodiscard]] std::vector<debug_breakpoint> breakpoints() const { return breakpoints_; }
  [[nodiscard]] std::vector<debug_breakpoint> suspended() const;

  // Keeps the caller at each breakpoint of the event, the newest first, until all of them have let
  // it go. They are gone then.
  [[nodiscard]] bool has_breakpoint(debug_event event) const;
  task<void> pass(debug_event event);

private:
  class stay;
  void let_go(stay& kept);

  listener told_;
  std::vector<debug_breakpoint> breakpoints_;
  std::list<stay*> kept_; // those not let go, in the order in which they came
  wait_queue let_go_;
  // How many let all pass. Shared with their tokens, which may outlive the node, and end on another
  // thread.
  std::shared_ptr<std::atomic<unsigned>> passing_ = std::make_shared<std::atomic<unsigned>>(0);
};

} // namespace bgfs::blkdebug
