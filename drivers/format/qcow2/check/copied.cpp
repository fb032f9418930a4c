// SPDX-License-Identifier: MIT
// The COPIED flag: set in entries of the active tables if, and only if, the refcount of what they
// name is 1. Set wrongly, it lets writes go to clusters that others use.
#include "drivers/format/qcow2/check/checker.h"

namespace bgfs::qcow2 {

task<void> checker::check_copied() {
  // With leaks alone repaired, only if nothing else is wrong: then the refcounts can be relied on.
  const bool is_sound = result_.is_sound() && result_.leaks == 0;
  const bool repairs = result_.check_errors == 0 &&
                       (repairs_all() || (mode_ == check_mode::repair_leaks && is_sound));
  table_bytes_left_ = 4 * file_length_ + 64 * MiB;
  std::vector<bool> is_done(active_.size());
  for (u64 i = 0; i < l1_.size(); i++) {
    const u64 at = l1_[i] & entry_offset_mask;
    if (at == 0)
      continue;
    co_await check_l1_copied(i, repairs);
    const active_table t = *find_active(at);
    const auto place = static_cast<std::size_t>(find_active(at) - active_.data());
    if (!is_done[place])
      co_await check_l2_copied(t, repairs);
    is_done[place] = true;
  }
}

// A table is changed in place. So nothing else may lie in its clusters: their refcounts, which are
// right by now, are how often the table itself is named.
task<void> checker::require_alone(byte_range table, u64 references, std::string_view what) {
  const cluster_run run = clusters_of(g(), table);
  for (u64 c = run.first; c < run.end(); c++) {
    const std::optional<u64> stored = co_await stored_refcount(c);
    if (stored == references && is_aligned(table.offset, g().cluster()))
      continue;
    result_.check_errors++;
    tell("ERROR: Could not write {} at {:#x}: something else lies there, too", what, table.offset);
    co_await fail(error_kind::corrupt_image,
                  "{} at {:#x} cannot be repaired, because something else lies in its clusters",
                  what, table.offset);
  }
}

// Each entry is 8 bytes in one sector: it has the old flag or the right one.
task<void> checker::check_l1_copied(u64 index, bool repairs) {
  const u64 entry = l1_[index];
  const std::optional<u64> refcount =
      co_await stored_refcount(cluster_of(entry & entry_offset_mask));
  if (!refcount || (*refcount == 1) == ((entry & entry_copied) != 0))
    co_return;
  tell("{} OFLAG_COPIED L2 cluster: l1_index={} l1_entry={:x} refcount={}",
       repairs ? "Repairing" : "ERROR", index, entry, *refcount);
  result_.corruptions++;
  if (!repairs)
    co_return;
  co_await require_alone({header_.l1.value, l1_.size() * 8}, 1, "the L1 table");
  l1_[index] = entry ^ entry_copied;
  std::array<std::byte, 8> bytes;
  store(std::span<std::byte>(bytes), be64(l1_[index]));
  co_await write(header_.l1.value + index * 8, bytes, "the L1 table");
  result_.corruptions--;
  result_.corruptions_fixed++;
}

task<void> checker::check_l2_copied(const active_table& t, bool repairs) {
  const std::span<std::byte> table = co_await read_l2(t.at);
  u64 wrong = 0;
  for (u64 i = 0; i < table.size() / g().l2_entry_bytes(); i++) {
    l2_entry entry = load_entry(g(), table, i);
    if (!names_cluster(entry))
      continue;
    const u64 cluster = cluster_of(entry.host().value);
    std::optional<u64> refcount = 1; // what is in a data file belongs to its place
    if (!has_data_file())
      refcount = known_refcount(cluster);
    if (!refcount)
      refcount = co_await stored_refcount(cluster);
    if (!refcount || (*refcount == 1) == entry.is_copied())
      continue;
    tell("{} OFLAG_COPIED data cluster: l2_entry={:x} refcount={}", repairs ? "Repairing" : "ERROR",
         entry.descriptor, *refcount);
    entry.descriptor ^= entry_copied;
    store_entry(g(), table, i, entry);
    wrong++;
  }
  if (wrong == 0)
    co_return;
  result_.corruptions += wrong * (repairs ? 1 : t.active);
  if (!repairs)
    co_return;
  co_await require_alone({t.at, g().cluster()}, t.weight(), "an L2 table");
  co_await write(t.at, table, "an L2 table");
  result_.corruptions -= wrong;
  result_.corruptions_fixed += wrong;
}

} // namespace bgfs::qcow2
