// SPDX-License-Identifier: MIT
#include "drivers/filter/copy_before_write/kept_clusters.h"

#include "graph/base/checked.h"

#include <algorithm>

namespace bgfs::cbw {

byte_range kept_clusters::bytes_of(u64 first, u64 count) const {
  return byte_range{first * cluster_, count * cluster_}.intersection({0, length_});
}

byte_range kept_clusters::clusters_of(byte_range range) const {
  return range.widened_to(cluster_).intersection({0, length_});
}

kept_clusters::run kept_clusters::find(byte_range range) const {
  const u64 first = range.offset / cluster_;
  const u64 end = divide_up(range.end(), cluster_);
  const bool is_unwanted = unwanted_.test(first);
  const bool is_kept = kept_.test(first);
  const auto boundary = [&](const dirty_bits& bits, bool is_set) {
    return (is_set ? bits.next_clear(first) : bits.next_set(first)).value_or(end);
  };
  u64 until = std::min(end, boundary(unwanted_, is_unwanted));
  if (!is_unwanted)
    until = std::min(until, boundary(kept_, is_kept));
  const byte_range found = bytes_of(first, until - first).intersection(range);
  return {found, is_unwanted ? where::nowhere : is_kept ? where::kept : where::live};
}

std::optional<byte_range> kept_clusters::next_to_keep(byte_range range, u64 most) const {
  byte_range rest = range.intersection({0, length_});
  while (!rest.is_empty()) {
    const run next = find(rest);
    if (next.is == where::live) {
      byte_range whole = clusters_of(next.range);
      whole.length = std::min(whole.length, std::max(align_down(most, cluster_), cluster_));
      return whole;
    }
    rest = byte_range::between(next.range.end(), rest.end());
  }
  return std::nullopt;
}

void kept_clusters::keep(byte_range clusters) {
  kept_.set(clusters.offset / cluster_, divide_up(clusters.length, cluster_));
}

void kept_clusters::forget(byte_range range) {
  const u64 first = divide_up(range.offset, cluster_);
  const u64 end = range.end() >= length_ ? unwanted_.count() : range.end() / cluster_;
  if (first < end)
    unwanted_.set(first, end - first);
}

task<void> kept_clusters::readers_left(byte_range range) {
  const auto is_inside = [&](byte_range r) { return r.overlaps(range); };
  while (std::ranges::any_of(readers_, is_inside))
    co_await left_.wait();
}

} // namespace bgfs::cbw
