// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/entry_change.h"

namespace bgfs::qcow2 {

namespace {

l2_entry zero_without_cluster(const clear_rules& rules) {
  if (rules.entries.g.is_extended)
    return {0, all_zero};
  // Version 2 cannot say "zero"; callers see to it that nothing shows through there.
  return {rules.entries.version < 3 ? 0 : entry_zero, 0};
}

l2_entry zero_with_cluster(const clear_rules& rules, l2_entry old) {
  if (rules.entries.g.is_extended)
    return {old.descriptor, all_zero};
  return {old.descriptor | entry_zero, 0};
}

} // namespace

entry_change zero_cluster(const clear_rules& rules, l2_entry old) {
  if (old.is_compressed())
    return {zero_without_cluster(rules), cluster_effect::freed};
  if (!old.has_cluster()) {
    const bool shows_backing = !rules.entries.g.is_extended ? (old.descriptor & entry_zero) == 0
                                                            : (old.bitmap & all_zero) != all_zero;
    if (shows_backing && rules.has_backing)
      return {zero_without_cluster(rules), cluster_effect::none};
    return {old, cluster_effect::none};
  }
  // A cluster that a snapshot has as well is not ours to keep: its content still matters there.
  const bool keeps = rules.keeps_reference && old.is_copied();
  if (rules.entries.version < 3 || (rules.may_unmap && !keeps))
    return {zero_without_cluster(rules), cluster_effect::freed};
  const l2_entry kept = zero_with_cluster(rules, old);
  const bool drops = rules.may_unmap && kept != old;
  return {kept, drops ? cluster_effect::content_dropped : cluster_effect::none};
}

std::optional<entry_change> zero_subclusters(const clear_rules& rules, l2_entry old, unsigned first,
                                             unsigned count) {
  if (count == rules.entries.g.subclusters())
    return zero_cluster(rules, old);
  if (old.is_compressed())
    return std::nullopt;
  const u64 allocated = old.bitmap & allocated_bits(first, count);
  l2_entry now = old;
  now.bitmap &= ~allocated_bits(first, count);
  // Without a backing file, what is not allocated reads as zeroes anyhow.
  now.bitmap |= rules.has_backing ? zero_bits(first, count) : allocated << 32;
  return entry_change{now, cluster_effect::none};
}

entry_change remove_cluster(l2_entry old) {
  const bool had_clusters = old.is_compressed() || old.has_cluster();
  return {{}, had_clusters ? cluster_effect::freed : cluster_effect::none};
}

} // namespace bgfs::qcow2
