// SPDX-License-Identifier: MIT
// L1 tables and the L2 tables they name. An L2 table that is named more than once, by snapshots or
// by mistake, is read once and its references count as often as it is named: the time a check takes
// is bounded by what lies in the file, not by how often it is pointed at.
#include "drivers/format/qcow2/check/checker.h"

namespace bgfs::qcow2 {

namespace {

// Of tables named more than once; more than this is no image that statistics matter for.
constexpr std::size_t repeated_max = 65536;

} // namespace

task<void> checker::load_l1() {
  std::vector<std::byte> bytes(u64{header_.l1_entries} * 8);
  co_await read(header_.l1.value, bytes, "the L1 table");
  l1_.resize(header_.l1_entries);
  for (u64 i = 0; i < l1_.size(); i++)
    l1_[i] = load<be64>(bytes, i * 8);
}

checker::active_table* checker::find_active(u64 at) {
  const auto found = std::ranges::lower_bound(active_, at, {}, &active_table::at);
  return found == active_.end() || found->at != at ? nullptr : &*found;
}

// Which tables the active L1 table names, and how often anybody does.
task<void> checker::add_up_active() {
  for (const u64 entry : l1_)
    if ((entry & entry_offset_mask) != 0)
      active_.push_back({entry & entry_offset_mask, 1, 0});
  std::ranges::sort(active_, {}, &active_table::at);
  std::size_t kept = 0;
  for (std::size_t i = 1; i < active_.size(); i++) {
    if (active_[i].at == active_[kept].at) {
      active_[kept].active++;
    } else {
      active_[++kept] = active_[i];
    }
  }
  active_.resize(active_.empty() ? 0 : kept + 1);
  table_bytes_left_ = 4 * file_length_ + 64 * MiB;
  std::vector<u64> entries;
  for (const auto& [index, times] : snapshot_groups_) {
    co_await read_snapshot_l1(snapshots_[index], entries);
    for (const u64 entry : entries)
      if (active_table* known = find_active(entry & entry_offset_mask))
        known->snapshots += times;
  }
}

task<void> checker::read_snapshot_l1(snapshot_record s, std::vector<u64>& entries) {
  entries.assign(s.l1_entries, 0);
  if (s.l1.value >= file_length_)
    co_return; // all zero
  std::vector<std::byte> bytes(u64{s.l1_entries} * 8);
  co_await read_table(s.l1.value, bytes, "the L1 table of a snapshot");
  for (u64 i = 0; i < entries.size(); i++)
    entries[i] = load<be64>(bytes, i * 8);
}

task<void> checker::for_active_tables(table_work work) {
  std::vector<bool> is_done(active_.size());
  for (const u64 entry : l1_) {
    const u64 at = entry & entry_offset_mask;
    if (at == 0)
      continue;
    const active_table& t = *find_active(at);
    const auto place = static_cast<std::size_t>(&t - active_.data());
    fragments f;
    if (!is_done[place]) {
      is_done[place] = true;
      current_ = &f;
      co_await (this->*work)({at, t.weight()});
      current_ = nullptr;
      if (t.active > 1 && repeated_.size() < repeated_max)
        repeated_[at] = f;
      co_await step_done();
    } else if (const auto known = repeated_.find(at); known != repeated_.end()) {
      f = known->second;
    }
    add_fragments(f);
  }
}

void checker::add_fragments(const fragments& f) {
  if (!is_telling())
    return;
  result_.allocated_clusters += f.allocated;
  result_.compressed_clusters += f.compressed;
  result_.fragmented_clusters += f.fragmented;
}

// Tables of snapshots alone, from the first place on, as many at a time as memory allows.
task<void> checker::for_snapshot_tables(table_work work) {
  u64 from = 0;
  while (from != ~u64{0} && !snapshot_groups_.empty()) {
    std::map<u64, u64> weights;
    from = co_await gather_tables(from, weights);
    for (const auto& [at, weight] : weights)
      co_await (this->*work)({at, weight});
  }
}

// How often snapshots name each table from `from` on; returns where the next round begins.
task<u64> checker::gather_tables(u64 from, std::map<u64, u64>& weights) {
  u64 next = ~u64{0};
  std::vector<u64> entries;
  for (const auto& [index, times] : snapshot_groups_) {
    co_await read_snapshot_l1(snapshots_[index], entries);
    for (const u64 entry : entries) {
      const u64 at = entry & entry_offset_mask;
      if (at == 0 || at < from || at >= next || find_active(at) != nullptr)
        continue;
      weights[at] += times;
      if (weights.size() <= limits_.tables_at_once)
        continue;
      next = std::prev(weights.end())->first;
      weights.erase(std::prev(weights.end()));
    }
  }
  co_return next;
}

task<std::span<std::byte>> checker::read_l2(u64 at) {
  if (at >= file_length_)
    co_return std::span<std::byte>(); // all zero
  l2_.resize(g().cluster());
  co_await read_table(at, l2_, "an L2 table");
  co_return std::span<std::byte>(l2_);
}

task<void> checker::count_l2(table_visit v) {
  count(v.at, g().cluster(), v.weight);
  const std::span<std::byte> table = co_await read_l2(v.at);
  fragments unused;
  fragments& f = current_ == nullptr ? unused : *current_;
  for (u64 i = 0; i < table.size() / g().l2_entry_bytes(); i++) {
    const l2_entry entry = load_entry(g(), table, i);
    if (entry != l2_entry{} && count_entry(v, i, entry, f) && is_telling())
      entries_to_clear_++;
  }
}

} // namespace bgfs::qcow2
