// SPDX-License-Identifier: MIT
// How events get to a driver that injects faults. Nothing here is reached where there is none.
#include "graph/model/debugging.h"

#include "graph/model/graph.h"
#include "graph/model/reach.h"

#include <algorithm>

namespace bgfs {

breakpoints_off::breakpoints_off(node& top) {
  const auto injects = [](const auto& n) { return n->as_debuggable() != nullptr; };
  if (std::ranges::none_of(top.owner().nodes(), injects))
    return;
  for (const node* n : nodes_below(top))
    if (n->is_open() && n->as_debuggable() != nullptr)
      tokens_.push_back(n->as_debuggable()->let_all_pass());
}

debuggable* node::filtered_listener() const {
  const edge* const below = filtered_child();
  return below != nullptr ? below->child().listener() : nullptr;
}

task<void> node::tell(debug_event event) const {
  if (debuggable* const told = listener())
    co_await told->happened(event);
}

task<void> node::tell_primary(debug_event event) const {
  if (primary_ != nullptr)
    co_await primary_->child().tell(event);
}

debuggable* node::find_debuggable() const {
  const node* n = this;
  while (n->debuggable_ == nullptr && n->primary_ != nullptr)
    n = &n->primary_->child();
  return n->debuggable_;
}

// A part of a read of a format, whose file listens.
task<void> node::read_told(extent e, u64 at, std::span<std::byte> part) {
  if (e.kind == extent_kind::data) {
    co_await tell_primary(debug_event::read_aio);
    co_await e.where->read(e.offset, part);
  } else if (e.kind == extent_kind::encoded) { // the driver tells what becomes of it
    co_await readable_->read(at, part);
  } else {
    if (backing_ != nullptr && at < backing_->length())
      co_await tell_primary(debug_event::read_backing_aio);
    co_await read_backing(at, part);
  }
}

task<void> node::write_told(write_piece what) {
  co_await debuggable_->happened(debug_event::pwritev);
  result<> outcome = co_await as_result(write_pieces(what));
  co_await debuggable_->happened(debug_event::pwritev_done);
  co_await std::move(outcome);
}

task<void> node::zero_told(zero_piece what) {
  co_await debuggable_->happened(debug_event::pwritev_zero);
  result<> outcome = co_await as_result(zero_pieces(what));
  co_await debuggable_->happened(debug_event::pwritev_done);
  co_await std::move(outcome);
}

} // namespace bgfs
