// SPDX-License-Identifier: MIT
#include "graph/io/cancel.h"

#include "graph/base/assert.h"

namespace bgfs {

cancel_state::~cancel_state() {
  BGFS_ASSERT(hooks_ == nullptr, "a wait outlives what could cancel it");
}

void cancel_state::request() {
  if (requested_)
    return;
  requested_ = true;
  while (hooks_ != nullptr) {
    cancel_hook* hook = hooks_;
    auto call = std::move(hook->on_request_);
    hook->detach();
    call();
  }
}

void cancel_hook::attach(cancel_state* state, std::function<void()> on_request) {
  if (state == nullptr)
    return;
  BGFS_ASSERT(state_ == nullptr);
  if (state->is_requested()) {
    on_request();
    return;
  }
  state_ = state;
  on_request_ = std::move(on_request);
  next_ = state->hooks_;
  if (next_ != nullptr)
    next_->previous_ = this;
  state->hooks_ = this;
}

void cancel_hook::detach() {
  if (state_ == nullptr)
    return;
  if (previous_ != nullptr)
    previous_->next_ = next_;
  if (next_ != nullptr)
    next_->previous_ = previous_;
  if (state_->hooks_ == this)
    state_->hooks_ = next_;
  state_ = nullptr;
  previous_ = next_ = nullptr;
  on_request_ = nullptr;
}

} // namespace bgfs
