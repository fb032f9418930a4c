// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/check/reference_counts.h"

#include "drivers/format/qcow2/refcount_block.h"

#include <algorithm>

namespace bgfs::qcow2 {

namespace {

constexpr u64 largest_of(unsigned order) {
  return order == 6 ? ~u64{0} : (u64{1} << (1u << order)) - 1;
}

constexpr u64 bytes_of(unsigned order) {
  return (reference_counts::piece_length << order) / 8;
}

} // namespace

void reference_counts::begin(u64 first) {
  pieces_.clear();
  found_number_.reset();
  bytes_ = 0;
  first_ = first;
  end_ = no_end;
}

const reference_counts::piece* reference_counts::find(u64 number) const {
  if (found_number_ == number)
    return found_;
  const auto known = pieces_.find(number);
  found_number_ = number;
  found_ = known == pieces_.end() ? nullptr : &known->second;
  return found_;
}

reference_counts::piece& reference_counts::find_or_make(u64 number) {
  if (const piece* known = find(number))
    return const_cast<piece&>(*known);
  piece& made = pieces_[number];
  made.bytes.resize(bytes_of(made.order));
  bytes_ += made.bytes.size();
  found_number_ = number;
  found_ = &made;
  return made;
}

void reference_counts::widen(piece& p, u64 count) {
  unsigned order = p.order;
  while (count > largest_of(order))
    order = order == 1 ? 3 : order == 3 ? 5 : 6;
  if (order == p.order)
    return;
  std::vector<std::byte> wider(bytes_of(order));
  for (u64 i = 0; i < piece_length; i++)
    store_refcount(wider, order, i, load_refcount(p.bytes, p.order, i));
  bytes_ += wider.size() - p.bytes.size();
  p.order = order;
  p.bytes = std::move(wider);
}

// One piece always stays, so that every window gets somewhere; windows begin where pieces do.
void reference_counts::keep_within_limit() {
  while (bytes_ > bytes_max_ && pieces_.size() > 1) {
    const auto last = std::prev(pieces_.end());
    bytes_ -= last->second.bytes.size();
    end_ = last->first * piece_length;
    pieces_.erase(last);
    found_number_.reset();
  }
}

u64 reference_counts::add(u64 cluster, u64 by) {
  if (!has(cluster))
    return 0;
  piece& p = find_or_make(cluster / piece_length);
  const u64 index = cluster % piece_length;
  const u64 before = load_refcount(p.bytes, p.order, index);
  const u64 added = std::min(by, count_max_ - before);
  widen(p, before + added);
  store_refcount(p.bytes, p.order, index, before + added);
  keep_within_limit();
  return has(cluster) ? by - added : 0;
}

u64 reference_counts::operator[](u64 cluster) const {
  const piece* p = find(cluster / piece_length);
  return p == nullptr ? 0 : load_refcount(p->bytes, p->order, cluster % piece_length);
}

std::optional<u64> reference_counts::next(u64 from) const {
  for (auto at = pieces_.lower_bound(from / piece_length); at != pieces_.end(); ++at) {
    const piece& p = at->second;
    for (u64 i = from / piece_length == at->first ? from % piece_length : 0; i < piece_length; i++)
      if (load_refcount(p.bytes, p.order, i) != 0)
        return at->first * piece_length + i;
  }
  return std::nullopt;
}

} // namespace bgfs::qcow2
