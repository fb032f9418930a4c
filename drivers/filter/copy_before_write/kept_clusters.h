// SPDX-License-Identifier: MIT
// Which clusters of an instant have been kept, who reads those that have not, and who is keeping
// some: what orders the reads of the instant and the writes of the live disk.
#pragma once

#include "graph/base/byte_range.h"
#include "graph/io/sync.h"
#include "graph/model/dirty_bits.h"

#include <list>

namespace bgfs::cbw {

class kept_clusters {
public:
  kept_clusters(u64 length, u64 cluster)
      : length_(length), cluster_(cluster), kept_(divide_up(length, cluster)),
        unwanted_(divide_up(length, cluster)) {}

  [[nodiscard]] u64 length() const { return length_; } // of the disk at that instant
  [[nodiscard]] u64 cluster() const { return cluster_; }

  // A run of bytes, whole clusters but at the end of the disk, with one answer.
  enum class where : u8 { live, kept, nowhere };
  struct run {
    byte_range range;
    where is;
  };
  // Of the first of these bytes, which lie inside the disk; no longer than they are.
  [[nodiscard]] run find(byte_range range) const;
  // The next run of whole clusters that begins in `range` and has still to be kept; its length is
  // at most `most`. nullopt: there is none.
  [[nodiscard]] std::optional<byte_range> next_to_keep(byte_range range, u64 most) const;
  [[nodiscard]] byte_range clusters_of(byte_range range) const; // cut off at the end of the disk

  void keep(byte_range clusters);
  // What only part of it is wanted stays.
  void forget(byte_range range);

  // While it lives nothing of the range may be overwritten in the live disk.
  class [[nodiscard]] reading {
  public:
    reading(kept_clusters& of, byte_range range)
        : of_(of), at_(of.readers_.insert(of.readers_.end(), range)) {}
    ~reading() {
      of_.readers_.erase(at_);
      of_.left_.wake_all();
    }
    reading(const reading&) = delete;
    reading& operator=(const reading&) = delete;

  private:
    kept_clusters& of_;
    std::list<byte_range>::iterator at_;
  };
  // Until no reader of the live disk is inside the range. All of it is kept, so no other comes.
  task<void> readers_left(byte_range range);
  // One at a time keeps a cluster.
  task<range_lock::guard> lock(byte_range clusters) { return keeping_.lock(clusters); }

private:
  [[nodiscard]] byte_range bytes_of(u64 first, u64 count) const;
  u64 length_;
  u64 cluster_;
  dirty_bits kept_;
  dirty_bits unwanted_;
  std::list<byte_range> readers_;
  wait_queue left_;
  range_lock keeping_;
};

} // namespace bgfs::cbw
