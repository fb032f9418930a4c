// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/l2_entry.h"

#include <bit>
#include <fmt/core.h>

namespace bgfs::qcow2 {

std::string_view to_string(subcluster_kind kind) {
  switch (kind) {
  case subcluster_kind::unallocated:
    return "unallocated";
  case subcluster_kind::unallocated_in_cluster:
    return "unallocated in an allocated cluster";
  case subcluster_kind::zero:
    return "zero";
  case subcluster_kind::zero_in_cluster:
    return "zero in an allocated cluster";
  case subcluster_kind::normal:
    return "data";
  case subcluster_kind::compressed:
    return "compressed";
  case subcluster_kind::invalid:
    return "invalid";
  }
  return "";
}

namespace {

bool is_misplaced(const entry_rules& rules, l2_entry entry) {
  return !entry.host().is_aligned_to(rules.g.cluster());
}

// Offset 0, where the header is.
bool is_over_header(const entry_rules& rules, l2_entry entry) {
  return !rules.has_data_file && entry.has_cluster() && entry.host().value == 0;
}

subcluster_kind standard_kind(const entry_rules& rules, l2_entry entry) {
  const bool has_cluster = entry.has_cluster();
  if ((entry.descriptor & entry_zero) != 0) {
    if (rules.version < 3)
      return subcluster_kind::invalid;
    return has_cluster ? subcluster_kind::zero_in_cluster : subcluster_kind::zero;
  }
  return has_cluster ? subcluster_kind::normal : subcluster_kind::unallocated;
}

subcluster_kind extended_kind(l2_entry entry, unsigned index) {
  const bool is_allocated = (entry.bitmap & allocated_bits(index, 1)) != 0;
  const bool reads_zero = (entry.bitmap & zero_bits(index, 1)) != 0;
  const bool has_cluster = entry.has_cluster();
  if ((entry.descriptor & entry_zero) != 0 || (is_allocated && reads_zero) ||
      (is_allocated && !has_cluster))
    return subcluster_kind::invalid;
  if (is_allocated)
    return subcluster_kind::normal;
  if (reads_zero)
    return has_cluster ? subcluster_kind::zero_in_cluster : subcluster_kind::zero;
  return has_cluster ? subcluster_kind::unallocated_in_cluster : subcluster_kind::unallocated;
}

} // namespace

subcluster_kind kind_of(const entry_rules& rules, l2_entry entry, unsigned index) {
  if (entry.is_compressed()) // its bitmap is reserved and not looked at
    return rules.has_data_file ? subcluster_kind::invalid : subcluster_kind::compressed;
  if (is_misplaced(rules, entry) || is_over_header(rules, entry))
    return subcluster_kind::invalid;
  return rules.g.is_extended ? extended_kind(entry, index) : standard_kind(rules, entry);
}

std::string explain_invalid(const entry_rules& rules, l2_entry entry) {
  if (entry.is_compressed())
    return "it is compressed, which data in an external data file cannot be";
  if (is_misplaced(rules, entry))
    return fmt::format("its cluster offset {:#x} is not aligned to the cluster size {:#x}",
                       entry.host().value, rules.g.cluster());
  if (!rules.g.is_extended && (entry.descriptor & entry_zero) != 0)
    return "it uses the zero flag, which version 2 does not have";
  if (is_over_header(rules, entry))
    return "it places data at host offset 0, where the header is";
  if (rules.g.is_extended && (entry.descriptor & entry_zero) != 0)
    return "it uses the zero flag, which extended L2 entries do not have";
  return fmt::format("its subcluster bitmap {:#018x} contradicts itself or its descriptor {:#018x}",
                     entry.bitmap, entry.descriptor);
}

unsigned same_kind_count(const entry_rules& rules, l2_entry entry, unsigned first) {
  if (!rules.g.is_extended || entry.is_compressed())
    return rules.g.subclusters() - first;
  const subcluster_kind kind = kind_of(rules, entry, first);
  unsigned count = 1;
  while (first + count < subclusters_extended && kind_of(rules, entry, first + count) == kind)
    count++;
  return count;
}

namespace {

// Spec, "Compressed Clusters Descriptor": x = 62 - (cluster_bits - 8) bits of offset, and behind
// them how many sectors follow the first one.
unsigned compressed_offset_bits(const geometry& g) {
  return 62 - (g.cluster_bits - 8);
}

} // namespace

u64 compressed_end_max(const geometry& g) {
  return std::min(host_end_max, u64{1} << compressed_offset_bits(g));
}

l2_entry compressed_entry(const geometry& g, byte_range host) {
  const u64 more_sectors = (host.end() - 1) / 512 - host.offset / 512;
  return {entry_compressed | more_sectors << compressed_offset_bits(g) | host.offset, 0};
}

byte_range compressed_range(const geometry& g, l2_entry entry) {
  const unsigned x = compressed_offset_bits(g);
  const u64 offset = entry.descriptor & ((u64{1} << x) - 1) & (host_end_max - 1);
  const u64 more_sectors =
      ((entry.descriptor & ~(entry_copied | entry_compressed)) >> x) & ((u64{1} << (62 - x)) - 1);
  const u64 end = align_down(offset, 512) + (more_sectors + 1) * 512;
  return byte_range::between(offset, end);
}

} // namespace bgfs::qcow2
