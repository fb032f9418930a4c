// SPDX-License-Identifier: MIT
// New refcounts when the old ones are of no use: a block is somebody else's cluster too, lies
// nowhere, or is missing. All new blocks and the table lie in one run behind the end of the file,
// where nothing can be that the walk did not find; the snapshot table goes with them when it has to
// be written anew. One write within the first sector of the header puts all of it in force.
#include "drivers/format/qcow2/check/checker.h"
#include "drivers/format/qcow2/refcount_block.h"
#include "graph/model/node.h"

namespace bgfs::qcow2 {

namespace {

// The header from the place of the refcount table to that of the snapshots, as it lies there.
struct locations_wire {
  be64 refcount_table_offset;
  be32 refcount_table_clusters;
  be32 snapshot_count;
  be64 snapshots_offset;
};
static_assert(sizeof(locations_wire) == 24);
static_assert(offsetof(header_v2_wire, refcount_table_offset) == header_at::refcount_table_offset);
static_assert(offsetof(header_v2_wire, snapshots_offset) == header_at::refcount_table_offset + 16);

} // namespace

task<void> checker::rebuild() {
  tell("Rebuilding refcount structure");
  counts_refcounts_ = false;
  std::vector<std::byte> snapshots;
  if (snapshot_corruptions_ != 0) {
    snapshots = co_await make_snapshot_table();
    snapshot_bytes_ = 0; // of the old one, which is given up
  }
  std::vector<u64> parts;
  co_await find_parts(parts);
  const new_refcounts plan =
      co_await plan_refcounts(std::move(parts), divide_up(snapshots.size(), g().cluster()));
  co_await write_blocks(plan);
  co_await write_table(plan, snapshots);
  counts_refcounts_ = true;
  co_await load_refcount_table();
  for (u64 c = plan.first; c < plan.run().end(); c++)
    counts_.add(c, 1);
  counted_end_ = std::max(counted_end_, plan.run().end());
  used_end_ = plan.run().end();
  file_length_ = align_up(file_.length(), 512);
  snapshot_bytes_ = snapshots.empty() ? snapshot_bytes_ : snapshots.size();
  // All refcounts are right. What is left is wrong with something else.
  const u64 fixed = refcount_corruptions_ + snapshot_corruptions_;
  result_.corruptions -= fixed;
  result_.corruptions_fixed += fixed;
  result_.leaks_fixed += std::exchange(result_.leaks, 0);
  result_.check_errors -= refcount_errors_;
}

// The parts of the file, as long as a block describes, in which something is in use.
task<void> checker::find_parts(std::vector<u64>& parts) {
  for (u64 first = 0;; first = counts_.end()) {
    co_await recount_silently(first);
    for (auto c = counts_.next(first); c;
         c = counts_.next((parts.back() + 1) * g().block_entries()))
      if (const u64 part = *c / g().block_entries(); parts.empty() || parts.back() != part)
        parts.push_back(part);
    if (counts_.is_last())
      co_return;
  }
}

result<checker::new_refcounts> checker::plan_refcounts(std::vector<u64> parts,
                                                       u64 snapshot_clusters) const {
  const bool can_grow = file_.child().may_grow_by_writing();
  const u64 describable = refcount_table_bytes_max / 8 * g().block_entries();
  new_refcounts plan{.first = clusters_end(), .parts = {}, .snapshot_clusters = snapshot_clusters};
  // A file that has its length for good, or an absurd one: behind everything that is in use.
  if (!can_grow || plan.first > describable / 2)
    plan.first = std::max(used_end_, counted_end_);
  for (;;) {
    const u64 clusters = plan.clusters();
    plan.parts = parts;
    for (u64 c = plan.first; c < plan.first + clusters;
         c = (c / g().block_entries() + 1) * g().block_entries())
      plan.parts.push_back(c / g().block_entries());
    std::ranges::sort(plan.parts);
    const auto repeated = std::ranges::unique(plan.parts);
    plan.parts.erase(repeated.begin(), repeated.end());
    plan.table_clusters = divide_up((plan.parts.back() + 1) * 8, g().cluster());
    if (plan.clusters() == clusters)
      break;
  }
  const u64 end = plan.run().end() << g().cluster_bits;
  if (plan.table_clusters << g().cluster_bits > refcount_table_bytes_max ||
      plan.run().end() > host_end_max >> g().cluster_bits)
    return fail(error_kind::no_space,
                "the file of {:#x} bytes is too long for refcounts in clusters of {:#x} bytes; "
                "copy what can be read of it with 'bgfs convert'",
                file_length_, g().cluster());
  if (!can_grow && end > file_.length())
    return fail(error_kind::no_space,
                "new refcounts need the file to be {:#x} bytes long, but it ends at {:#x} and "
                "cannot grow",
                end, file_.length());
  return plan;
}

// A block that more than one window fills is read back in between.
task<void> checker::write_blocks(const new_refcounts& plan) {
  const u64 entries = g().block_entries();
  std::vector<std::byte> bytes(g().cluster());
  bool is_counted = counts_.is_everything();
  for (u64 first = 0;; first = counts_.end()) {
    if (!is_counted)
      co_await recount_silently(first);
    is_counted = false;
    for (u64 i = 0; i < plan.parts.size(); i++) {
      const u64 part = plan.parts[i] * entries;
      if (part + entries <= counts_.first() || part >= counts_.end())
        continue;
      const u64 place = (plan.first + i) << g().cluster_bits;
      std::ranges::fill(bytes, std::byte{0});
      if (part < counts_.first())
        co_await read(place, bytes, "a new refcount block");
      const u64 end = std::min(part + entries, counts_.end());
      for (auto c = counts_.next(std::max(part, counts_.first())); c && *c < end;
           c = counts_.next(*c + 1))
        store_refcount(bytes, g().refcount_order, *c % entries, counts_[*c]);
      for (u64 c = std::max(part, plan.first); c < std::min(end, plan.run().end()); c++)
        store_refcount(bytes, g().refcount_order, c % entries, 1);
      co_await write(place, bytes, "a new refcount block");
      co_await give_way();
    }
    if (counts_.is_last())
      co_return;
  }
}

task<void> checker::write_table(const new_refcounts& plan, std::span<const std::byte> snapshots) {
  const geometry& geo = g();
  std::vector<std::byte> bytes(plan.table_clusters << geo.cluster_bits);
  for (u64 i = 0; i < plan.parts.size(); i++)
    store(std::span(bytes), be64((plan.first + i) << geo.cluster_bits), plan.parts[i] * 8);
  const u64 table = (plan.first + plan.parts.size()) << geo.cluster_bits;
  const u64 behind = table + bytes.size();
  co_await write(table, bytes, "the new refcount table");
  locations_wire w{table, static_cast<u32>(plan.table_clusters), header_.snapshot_count,
                   header_.snapshots.value};
  if (snapshot_corruptions_ != 0) {
    bytes.assign(plan.snapshot_clusters << geo.cluster_bits, std::byte{0});
    std::ranges::copy(snapshots, bytes.begin());
    if (!bytes.empty())
      co_await write(behind, bytes, "the new snapshot table");
    w.snapshot_count = static_cast<u32>(snapshots_.size());
    w.snapshots_offset = bytes.empty() ? 0 : behind;
  }
  // If we stop here, the old table is in force and knows nothing of what lies behind its end.
  co_await flush();
  std::array<std::byte, sizeof w> field;
  store(std::span<std::byte>(field), w);
  // If we stop at this, either all of the old or all of the new is in force.
  co_await write(header_at::refcount_table_offset, field, "the place of the refcount table");
  co_await flush();
  header_.refcount_table = host_offset(table);
  header_.refcount_table_clusters = static_cast<u32>(plan.table_clusters);
  header_.snapshot_count = w.snapshot_count;
  header_.snapshots = host_offset(w.snapshots_offset);
}

} // namespace bgfs::qcow2
