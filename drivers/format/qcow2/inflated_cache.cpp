// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/inflated_cache.h"

#include <algorithm>

namespace bgfs::qcow2 {

inflated_cache::loading::~loading() {
  if (is_published_)
    return;
  owner_.slots_.erase(at_);
  owner_.changed_.wake_all();
}

void inflated_cache::loading::publish() {
  if (at_->descriptor == 0)
    return; // freed meanwhile: what its bytes were is true only for those who looked before that
  at_->is_ready = true;
  is_published_ = true;
  owner_.slots_.splice(owner_.slots_.begin(), owner_.slots_, at_);
  owner_.trim(); // here and not before: many may have been inflated side by side
  owner_.changed_.wake_all();
}

std::optional<std::span<const std::byte>> inflated_cache::find(l2_entry entry) {
  const auto at = std::ranges::find(slots_, entry.descriptor, &slot::descriptor);
  if (at == slots_.end() || !at->is_ready)
    return std::nullopt;
  slots_.splice(slots_.begin(), slots_, at);
  return at->bytes.bytes();
}

bool inflated_cache::is_loading(l2_entry entry) const {
  const auto at = std::ranges::find(slots_, entry.descriptor, &slot::descriptor);
  return at != slots_.end() && !at->is_ready;
}

inflated_cache::loading inflated_cache::begin(const geometry& g, l2_entry entry,
                                              buffer_pool& buffers) {
  BGFS_ASSERT(entry.is_compressed(), "Q9: only a compressed cluster is inflated");
  BGFS_ASSERT(!is_loading(entry), "Q9: one that is being inflated is waited for");
  slots_.push_front({entry.descriptor, compressed_range(g, entry), buffers.allocate(g.cluster())});
  return {*this, slots_.begin()};
}

// The one just published is the first, and stays.
void inflated_cache::trim() {
  const u64 cluster = slots_.front().bytes.length();
  const u64 kept_max = std::clamp<u64>(kept_bytes_max / cluster, 1, kept_clusters_max);
  u64 kept = 0;
  for (auto at = slots_.begin(); at != slots_.end();)
    at = at->is_ready && ++kept > kept_max ? slots_.erase(at) : std::next(at);
}

void inflated_cache::forget(byte_range host) {
  for (auto at = slots_.begin(); at != slots_.end();) {
    const bool is_gone = at->host.overlaps(host);
    if (is_gone && at->is_ready) {
      at = slots_.erase(at);
      continue;
    }
    if (is_gone)
      at->descriptor = 0; // its owner still writes into it
    ++at;
  }
  changed_.wake_all(); // nobody waits for what can no longer be found
}

} // namespace bgfs::qcow2
