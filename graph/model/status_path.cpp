// SPDX-License-Identifier: MIT
// Block status (reference section 1.6): what a run of bytes is, in one node and along its chain.
#include "graph/model/graph.h"

namespace bgfs {

task<block_status> node::status(byte_range range, bool wants_zero) {
  if (is_suspended_)
    co_await check_active();
  if (limits_.has_variable_length)
    follow_variable_length();
  if (range.offset >= length_)
    co_return block_status{.is_end = true};
  range.length = std::min(range.length, length_ - range.offset);
  if (range.is_empty())
    co_return block_status{};
  const byte_range blocks = range.widened_to(limits_.request_alignment);
  extent e = co_await find_extent(blocks, wants_zero);
  if (range.offset >= length_) // shortened meanwhile
    co_return block_status{.is_end = true};
  range.length = std::min(range.length, length_ - range.offset);
  const u64 before = range.offset - blocks.offset;
  if (e.kind == extent_kind::end)
    co_return block_status{
        .length = range.length, .is_zero = true, .is_end = range.end() == length_};
  if (e.length <= before) {
    // Runs of a host file system end where they like. What is in doubt is data.
    BGFS_ASSERT(e.length > 0, "M5: a mapping makes progress");
    e = extent{
        .length = limits_.request_alignment, .kind = extent_kind::data, .offset = blocks.offset};
  }
  e.length = std::min(e.length - before, length_ - range.offset);
  e.offset += before;
  block_status s = co_await status_of_extent(e, range, wants_zero);
  s.length = std::min(s.length, e.length);
  s.is_end = range.offset + s.length == length_;
  co_return s;
}

// Asks the driver; a node without children keeps the last run of data it was told of, since to ask
// a file system or a server again and again is slow.
task<extent> node::find_extent(byte_range range, bool wants_zero) {
  const bool is_leaf = children_.empty() && type_->kind == driver_kind::protocol;
  if (is_leaf && known_data_.contains(range.offset))
    co_return extent{.length = known_data_.end() - range.offset,
                     .kind = extent_kind::data,
                     .offset = range.offset};
  const u64 epoch = status_epoch_;
  extent e = co_await map(range);
  // A driver that was not asked for zeroes may have called them data.
  const bool is_plain_data = e.kind == extent_kind::data && e.where == nullptr &&
                             e.offset == range.offset && !e.is_passthrough;
  if (is_leaf && is_plain_data && wants_zero && epoch == status_epoch_ && range.offset < length_)
    known_data_ = {range.offset, std::min(e.length, length_ - range.offset)};
  co_return e;
}

// Called when something that may have taken data away has ended. An answer that is on its way from
// the driver may be from before: the epoch keeps it out.
void node::forget_status(byte_range range) {
  status_epoch_++;
  if (known_data_.overlaps(range))
    known_data_ = {};
}

task<block_status> node::status_of_extent(extent e, byte_range range, bool wants_zero) {
  if (e.is_passthrough) {
    block_status below = co_await e.where->child().status({e.offset, e.length}, wants_zero);
    if (below.length == 0) // past the child's end
      co_return block_status{.length = e.length, .is_zero = true, .is_allocated = true};
    co_return below;
  }
  block_status s{.length = e.length};
  const bool is_protocol = type_->kind == driver_kind::protocol;
  const bool has_offset = e.where != nullptr || (is_protocol && e.kind != extent_kind::unallocated);
  if (has_offset && e.kind != extent_kind::encoded) {
    s.file = e.where != nullptr ? &e.where->child() : this;
    s.offset = e.offset;
  }
  s.is_data = e.kind == extent_kind::data || e.kind == extent_kind::encoded || e.is_unwritten;
  s.is_zero = e.kind == extent_kind::zero;
  s.is_compressed = e.is_compressed;
  s.is_allocated = s.is_data || s.is_zero;
  if (!s.is_allocated && type_->supports_backing) {
    if (backing_ == nullptr)
      s.is_zero = true;
    else if (wants_zero && backing_->length() <= range.offset)
      s.is_zero = true;
  }
  const bool asks_child = e.is_recursive && wants_zero && s.is_data && s.file != nullptr;
  if (asks_child && s.file != this)
    co_await add_zero_from_child(e, s);
  co_return s;
}

// Data that the child knows to be a hole. It is a help and no more: a child that cannot tell is no
// reason to fail.
task<void> node::add_zero_from_child(const extent& e, block_status& s) {
  const result<block_status> below =
      co_await as_result(e.where->child().status({e.offset, s.length}));
  if (!below)
    co_return;
  if (below->length == 0 || (below->is_end && below->is_zero)) {
    s.is_zero = true; // nor is there anything behind its end
  } else {
    s.length = std::min(s.length, below->length);
    s.is_zero = below->is_zero;
  }
}

task<block_status> node::status_above(byte_range range, const node* base, bool wants_zero) {
  const u64 top_length = length_;
  block_status s = co_await status(range, wants_zero);
  s.length = std::min(s.length, range.length);
  s.depth = 1;
  if (s.length == 0 || s.is_allocated || this == base)
    co_return s;
  // A filter has answered for the node below it: together they are one layer.
  const node* const end = base == nullptr ? nullptr : base->skip_filters();
  for (node* layer = skip_filters(); layer != end;) {
    node* const below_layer = layer->next_in_chain();
    layer = below_layer != nullptr ? below_layer->skip_filters() : nullptr;
    if (layer == nullptr || layer == end)
      break;
    const unsigned depth = s.depth + 1;
    block_status below = co_await layer->status({range.offset, s.length}, wants_zero);
    if (below.length == 0) // too short: what it would have held reads as zeroes, decided there
      below = block_status{.length = s.length, .is_zero = true, .is_allocated = true};
    below.length = std::min(below.length, s.length);
    below.depth = depth;
    s = below;
    if (s.is_allocated)
      break;
  }
  s.is_end = range.offset + s.length == top_length;
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
