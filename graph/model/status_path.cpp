// SPDX-License-Identifier: MIT
// Block status (reference section 1.6): what a run of bytes is, in one node and along its chain.
#include "graph/model/graph.h"

namespace bgfs {

task<block_status> node::status(byte_range range, bool wants_zero) {
  if (is_suspended_)
    co_await check_active();
  if (range.offset >= length_)
    co_return block_status{.is_end = true};
  range.length = std::min(range.length, length_ - range.offset);
  if (range.is_empty())
    co_return block_status{};
  const byte_range blocks = range.widened_to(limits_.request_alignment);
  extent e = co_await map(blocks);
  const u64 before = range.offset - blocks.offset;
  if (e.kind == extent_kind::end)
    co_return block_status{.length = range.length, .is_zero = true, .is_end = true};
  BGFS_ASSERT(e.length > before, "M5: a mapping makes progress");
  e.length = std::min(e.length - before, length_ - range.offset);
  e.offset += before;
  block_status s = co_await status_of_extent(e, range, wants_zero);
  s.is_end = range.offset + s.length == length_;
  co_return s;
}

task<block_status> node::status_of_extent(extent e, byte_range range, bool wants_zero) {
  block_status s{.length = e.length};
  const bool is_protocol = type_->kind == driver_kind::protocol;
  if (e.where != nullptr || (is_protocol && e.kind != extent_kind::unallocated)) {
    s.file = e.where != nullptr ? &e.where->child() : this;
    s.offset = e.offset;
  }
  if (e.is_passthrough) {
    block_status below = co_await e.where->child().status({e.offset, e.length}, wants_zero);
    if (below.length == 0) { // past the child's end
      s.is_zero = s.is_allocated = true;
      s.file = nullptr;
      co_return s;
    }
    below.length = std::min(below.length, e.length);
    co_return below;
  }
  switch (e.kind) {
  case extent_kind::data:
    s.is_data = true;
    break;
  case extent_kind::encoded:
    s.is_data = true;
    s.is_compressed = e.is_compressed;
    s.file = nullptr;
    break;
  case extent_kind::zero:
    s.is_zero = true;
    break;
  case extent_kind::unallocated:
  case extent_kind::end:
    break;
  }
  s.is_allocated = s.is_data || s.is_zero;
  if (!s.is_allocated && type_->supports_backing) {
    const u64 backing_length = backing_ != nullptr ? backing_->length() : 0;
    if (backing_ == nullptr) {
      s.is_zero = true;
    } else if (wants_zero && backing_length <= range.offset) {
      s.is_zero = true;
    }
  }
  if (e.is_recursive && wants_zero && s.is_data && !s.is_zero && s.file != nullptr &&
      s.file != this) {
    const block_status below = co_await e.where->child().status({e.offset, s.length}, wants_zero);
    if (below.length == 0) {
      s.is_zero = true;
    } else { // data or hole: the run is what the file says is alike
      s.length = std::min(s.length, below.length);
      s.is_zero = below.is_zero;
    }
  }
  co_return s;
}

task<block_status> node::status_above(byte_range range, const node* base, bool wants_zero) {
  block_status s = co_await status(range, wants_zero);
  const u64 top_length = length_;
  const u64 asked = std::min(range.length, s.length);
  s.length = asked == 0 ? s.length : asked;
  s.depth = 1;
  if (s.length == 0 || s.is_allocated)
    co_return s;
  unsigned depth = 1;
  for (node* layer = next_in_chain(); layer != nullptr && layer != base;
       layer = layer->next_in_chain()) {
    depth++;
    block_status below = co_await layer->status({range.offset, s.length}, wants_zero);
    if (below.length == 0) {
      // The layer is too short: what it would have held reads as zeroes, decided there.
      s.is_zero = s.is_allocated = true;
      s.is_data = false;
      s.file = nullptr;
      s.depth = depth;
      co_return s;
    }
    below.length = std::min(below.length, s.length);
    below.depth = depth;
    below.is_end = range.offset + below.length == top_length;
    s = below;
    if (s.is_allocated)
      co_return s;
  }
  co_return s;
}

task<u64> node::allocated_length() {
  std::optional<u64> own = co_await driver_->allocated_length();
  if (own)
    co_return *own;
  u64 sum = 0;
  for (const auto& e : children_) {
    if (e->has_role(role::backing))
      continue;
    const u64 part = co_await e->child().allocated_length();
    sum += part;
  }
  co_return sum;
}

} // namespace bgfs
