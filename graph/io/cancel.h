// SPDX-License-Identifier: MIT
// Cancellation: a cancel_state is inherited by every task below the one it was given to
// (task_context). Requesting it ends the waits among them with error_kind::cancelled; operations
// of the kernel that are in flight run to their end, and nothing new is started by a check().
#pragma once

#include "graph/base/result.h"

#include <functional>

namespace bgfs {

class cancel_hook;

// Used on one loop only.
class cancel_state {
public:
  cancel_state() = default;
  ~cancel_state();
  cancel_state(const cancel_state&) = delete;
  cancel_state& operator=(const cancel_state&) = delete;

  void request();
  [[nodiscard]] bool is_requested() const { return requested_; }

private:
  friend class cancel_hook;
  cancel_hook* hooks_ = nullptr;
  bool requested_ = false;
};

// Calls a function once when cancellation is requested, until detached. At most one call; never
// after detach. If it was requested already the call happens in attach.
class cancel_hook {
public:
  cancel_hook() = default;
  ~cancel_hook() { detach(); }
  cancel_hook(const cancel_hook&) = delete;
  cancel_hook& operator=(const cancel_hook&) = delete;

  void attach(cancel_state* state, std::function<void()> on_request);
  void detach();

private:
  friend class cancel_state;
  cancel_state* state_ = nullptr;
  cancel_hook* previous_ = nullptr;
  cancel_hook* next_ = nullptr;
  std::function<void()> on_request_; // small captures only: stored without a heap trip
};

} // namespace bgfs
