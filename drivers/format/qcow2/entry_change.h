// SPDX-License-Identifier: MIT
// What zero writes, discards and shrinking make of an L2 entry. Pure, so that every case can be
// held against a table (reference section 3.6).
#pragma once

#include "drivers/format/qcow2/l2_entry.h"

#include <optional>

namespace bgfs::qcow2 {

struct clear_rules {
  entry_rules entries;
  // A backing file is or may be below: what is unallocated must be marked as zero.
  bool has_backing = false;
  bool may_unmap = false;       // free the cluster instead of keeping it for later
  bool keeps_reference = false; // discard-no-unref: keep it, but its content may go
};

enum class cluster_effect : u8 {
  none,
  freed,           // the entry's host cluster, or those a compressed one touches, lose a reference
  content_dropped, // the host cluster stays, what it holds does not matter any more
};

struct entry_change {
  l2_entry entry;
  cluster_effect effect = cluster_effect::none;
  friend bool operator==(const entry_change&, const entry_change&) = default;
};

// The whole cluster reads as zeroes afterwards.
[[nodiscard]] entry_change zero_cluster(const clear_rules& rules, l2_entry old);
// Only these subclusters do; nullopt when the entry cannot say so (compressed).
[[nodiscard]] std::optional<entry_change> zero_subclusters(const clear_rules& rules, l2_entry old,
                                                           unsigned first, unsigned count);
// Nothing is left of it: for clusters behind the end of the disk.
[[nodiscard]] entry_change remove_cluster(l2_entry old);

} // namespace bgfs::qcow2
