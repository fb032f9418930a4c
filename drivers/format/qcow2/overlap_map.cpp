// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/overlap_map.h"

namespace bgfs::qcow2 {

std::string_view describe_metadata(metadata_kinds kinds) {
  struct row {
    metadata_kinds kind;
    std::string_view name;
  };
  static constexpr row rows[] = {
      {metadata_kind::main_header, "the header"},
      {metadata_kind::active_l1, "the active L1 table"},
      {metadata_kind::active_l2, "an active L2 table"},
      {metadata_kind::refcount_table, "the refcount table"},
      {metadata_kind::refcount_block, "a refcount block"},
      {metadata_kind::snapshot_table, "the snapshot table"},
      {metadata_kind::inactive_l1, "the L1 table of a snapshot"},
      {metadata_kind::inactive_l2, "an L2 table of a snapshot"},
      {metadata_kind::bitmap_directory, "the bitmap directory"},
      {metadata_kind::crypto_header, "the encryption header"},
  };
  for (const row& r : rows)
    if ((kinds & r.kind) != 0)
      return r.name;
  return "nothing";
}

void overlap_map::add(metadata_kinds kind, byte_range host) {
  if ((kind & watched_) == 0)
    return;
  const cluster_run run = clusters_of(g_, host);
  for (u64 c = run.first; c < run.end(); c++)
    clusters_[c] |= kind;
}

void overlap_map::remove(metadata_kinds kind, byte_range host) {
  if ((kind & watched_) == 0)
    return;
  const cluster_run run = clusters_of(g_, host);
  for (u64 c = run.first; c < run.end(); c++) {
    const auto found = clusters_.find(c);
    if (found == clusters_.end())
      continue;
    found->second &= static_cast<metadata_kinds>(~kind);
    if (found->second == 0)
      clusters_.erase(found);
  }
}

std::optional<overlap_map::hit> overlap_map::find(byte_range host, metadata_kinds except) const {
  if (watched_ == 0 || host.is_empty())
    return std::nullopt;
  const cluster_run run = clusters_of(g_, host);
  for (u64 c = run.first; c < run.end(); c++) {
    const auto found = clusters_.find(c);
    if (found == clusters_.end())
      continue;
    const auto kinds = static_cast<metadata_kinds>(found->second & ~except);
    if (kinds != 0)
      return hit{host_offset(c << g_.cluster_bits), kinds};
  }
  return std::nullopt;
}

} // namespace bgfs::qcow2
