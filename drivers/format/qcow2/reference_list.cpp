// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/reference_list.h"

namespace bgfs::qcow2 {

result<std::vector<host_reference>> references_of(const entry_rules& rules,
                                                  std::span<const std::byte> slice) {
  using kind = host_reference::kind;
  const geometry& g = rules.g;
  std::vector<host_reference> found;
  for (u64 i = 0; i < slice.size() / g.l2_entry_bytes(); i++) {
    const l2_entry entry = load_entry(g, slice, i);
    if (entry.is_compressed()) {
      found.push_back({kind::compressed, clusters_of(g, compressed_range(g, entry))});
      continue;
    }
    for (unsigned sub = 0; sub < g.subclusters(); sub += same_kind_count(rules, entry, sub))
      if (kind_of(rules, entry, sub) == subcluster_kind::invalid)
        return fail(error_kind::corrupt_image, "entry {} is invalid: {}", i,
                    explain_invalid(rules, entry));
    if (!entry.has_cluster())
      continue;
    const u64 cluster = entry.host().value >> g.cluster_bits;
    if (!found.empty() && found.back().what == kind::data &&
        found.back().clusters.end() == cluster) {
      found.back().clusters.count++;
    } else {
      found.push_back({kind::data, {cluster, 1}});
    }
  }
  return found;
}

bool clear_copied(const geometry& g, std::span<std::byte> slice) {
  bool has_changed = false;
  for (u64 i = 0; i < slice.size() / g.l2_entry_bytes(); i++) {
    l2_entry entry = load_entry(g, slice, i);
    if (!entry.is_copied())
      continue;
    entry.descriptor &= ~entry_copied;
    store_entry(g, slice, i, entry);
    has_changed = true;
  }
  return has_changed;
}

} // namespace bgfs::qcow2
