// SPDX-License-Identifier: MIT
// The last few compressed clusters that were read in part, inflated: small reads one behind the
// other would inflate the whole cluster for each. Whoever wants one that is being inflated waits
// for it.
//
// What is kept is known by the L2 descriptor of its cluster, and lives no longer than that
// descriptor means those bytes (Q9): who frees the cluster has it forgotten in the same step.
// Used on the image's loop only: a lease leads nobody else to compressed clusters.
#pragma once

#include "drivers/format/qcow2/l2_entry.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/wait_queue.h"

#include <list>

namespace bgfs::qcow2 {

class inflated_cache {
  struct slot {
    u64 descriptor = 0; // 0: forgotten while it was being inflated
    byte_range host;    // of the compressed bytes
    buffer bytes;
    bool is_ready = false;
  };

public:
  // What is kept: so many bytes in so many clusters, and one cluster where they are longer. What is
  // being inflated comes on top; its requests would hold as much anyhow.
  static constexpr u64 kept_bytes_max = MiB;
  static constexpr u64 kept_clusters_max = 16;

  // A cluster that its owner is inflating. Others get to see it when it is published; it goes away
  // without that when the inflating fails.
  class loading {
  public:
    loading(loading&&) = delete;
    ~loading();
    [[nodiscard]] std::span<std::byte> bytes() const { return at_->bytes.bytes(); }
    void publish();

  private:
    friend class inflated_cache;
    loading(inflated_cache& owner, std::list<slot>::iterator at) : owner_(owner), at_(at) {}
    inflated_cache& owner_;
    std::list<slot>::iterator at_;
    bool is_published_ = false;
  };

  // Neither suspends. The bytes are there until the next await; is_loading: wait for changed().
  [[nodiscard]] std::optional<std::span<const std::byte>> find(l2_entry entry);
  [[nodiscard]] bool is_loading(l2_entry entry) const;
  [[nodiscard]] detail::wait_await changed() { return changed_.wait(); }
  [[nodiscard]] loading begin(const geometry& g, l2_entry entry, buffer_pool& buffers);

  // Compressed clusters in these host bytes are nobody's any more.
  void forget(byte_range host);
  void clear() { forget({0, ~u64{0}}); }
  [[nodiscard]] std::size_t count() const { return slots_.size(); }

private:
  void trim();

  std::list<slot> slots_; // the last used first
  wait_queue changed_;
};

} // namespace bgfs::qcow2
