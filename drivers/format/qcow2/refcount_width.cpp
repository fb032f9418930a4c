// SPDX-License-Identifier: MIT
// Changing how wide refcounts are (reference section 3.16, refcount_bits). New blocks and a new
// table are built behind the end of the file, beside the old ones, which count them, too. One write
// within the header's first sector changes the width together with the table:
//
//   built      old table in force; the new clusters are counted and nobody refers to them: a leak
//   switched   new table in force; it counts the old table and its blocks, which leak
//   freed      they are not counted any more
//
// Memory: the list of new blocks (at most a million, the table's bound) and one block.
#include "drivers/format/qcow2/cluster_allocator.h"
#include "drivers/format/qcow2/refcount_block.h"

namespace bgfs::qcow2 {

namespace {

geometry with_width(geometry g, unsigned order) {
  g.refcount_order = order;
  return g;
}

} // namespace

// Which blocks there will be, from what is counted now; a count that does not fit ends it.
task<cluster_allocator::wide_blocks> cluster_allocator::plan_width(unsigned order) {
  const geometry& g = header_.g;
  const geometry wide = with_width(g, order);
  wide_blocks plan;
  for (u64 old = 0; old < table_.size(); old++) {
    if (table_[old] == 0)
      continue;
    const std::span<const std::byte> bytes = co_await load_block(old);
    for (u64 i = 0; i < entries(); i++) {
      const u64 count = load_refcount(bytes, g.refcount_order, i);
      if (count == 0)
        continue;
      const u64 cluster = old * entries() + i;
      if (count > wide.refcount_max())
        co_await fail(error_kind::unsupported,
                      "cluster {:#x} is referred to {} times, and refcounts of {} bits end at {}; "
                      "delete snapshots, or choose a larger 'refcount_bits'",
                      cluster, count, wide.refcount_bits(), wide.refcount_max());
      if (plan.indices.empty() || plan.indices.back() != cluster / wide.block_entries())
        plan.indices.push_back(cluster / wide.block_entries());
    }
  }
  const u64 table_entries = plan.indices.empty() ? 1 : plan.indices.back() + 1;
  plan.table_clusters = divide_up(table_entries * 8, g.cluster());
  if (plan.table_clusters << g.cluster_bits > refcount_table_bytes_max)
    co_await fail(error_kind::no_space,
                  "with refcounts of {} bits the refcount table would be larger than {:#x} bytes; "
                  "choose a smaller 'refcount_bits', or larger clusters",
                  wide.refcount_bits(), refcount_table_bytes_max);
  co_return plan;
}

// Clusters for the table and the blocks, in one run. They have to be counted themselves, which may
// take more blocks: so more is taken than the plan says, and what is left over is given back.
task<cluster_run> cluster_allocator::place_wide(unsigned order, wide_blocks& plan) {
  const u64 per_block = with_width(header_.g, order).block_entries();
  for (u64 spare = 2;; spare *= 2) {
    u64 count = plan.clusters() + spare;
    count += 2 * divide_up(count, per_block) + divide_up(count, header_.g.cluster() / 8);
    const new_clusters taken = co_await allocate_at_end(count);
    plan = co_await plan_width(order);
    if (plan.clusters() > taken.run.count) { // many old blocks came, too
      co_await free_unlinked(taken.run);
      continue;
    }
    const cluster_run left{taken.run.first + plan.clusters(), taken.run.count - plan.clusters()};
    if (left.count != 0)
      co_await free_unlinked(left); // a block may be left with no count in it: it stays
    co_return cluster_run{taken.run.first, plan.clusters()};
  }
}

task<void> cluster_allocator::fill_block(std::span<std::byte> block, unsigned order, u64 index) {
  std::ranges::fill(block, std::byte{0});
  const u64 per_block = with_width(header_.g, order).block_entries();
  const u64 end = std::min((index + 1) * per_block, table_.size() * entries());
  for (u64 cluster = index * per_block; cluster < end;) {
    const u64 old = cluster / entries();
    const u64 part_end = std::min(end, (old + 1) * entries());
    if (table_[old] == 0) {
      cluster = part_end;
      continue;
    }
    const std::span<const std::byte> bytes = co_await load_block(old);
    for (; cluster < part_end; cluster++)
      store_refcount(block, order, cluster % per_block,
                     load_refcount(bytes, header_.g.refcount_order, cluster % entries()));
  }
}

task<refcount_table> cluster_allocator::write_wide(const wide_blocks& plan, unsigned order,
                                                   cluster_run place,
                                                   const std::function<void(u64, u64)>& progress) {
  const geometry& g = header_.g;
  const host_offset table_at = place.offset(g);
  const host_offset blocks_at = table_at + (plan.table_clusters << g.cluster_bits);
  store_.forget(place.bytes(g));
  refcount_table next;
  next.resize(plan.table_clusters * (g.cluster() / 8));
  std::vector<std::byte> block(g.cluster());
  for (u64 i = 0; i < plan.indices.size(); i++) {
    const host_offset at = blocks_at + (i << g.cluster_bits);
    co_await fill_block(block, order, plan.indices[i]);
    if (file_.tells())
      co_await file_.tell(debug_event::refblock_update);
    co_await file_.write_structure(at, block, metadata_kind::refcount_block);
    next.set(plan.indices[i], at.value);
    if (progress)
      progress(i + 1, plan.indices.size());
  }
  std::vector<std::byte> bytes(plan.table_clusters << g.cluster_bits);
  next.for_each([&](u64 i, u64 at) { store(std::span(bytes), be64(at), i * 8); });
  if (file_.tells())
    co_await file_.tell(debug_event::reftable_update);
  co_await file_.write_structure(table_at, bytes, metadata_kind::refcount_table);
  co_return next;
}

task<void> cluster_allocator::switch_width(unsigned order, refcount_table next, cluster_run table) {
  const geometry& g = header_.g;
  std::array<std::byte, sizeof(refcount_location_wire)> old_field;
  co_await file_.read_structure(host_offset(header_at::refcount_table_offset), old_field,
                                "the header");
  auto location = load<refcount_location_wire>(std::span<const std::byte>(old_field));
  location.refcount_table_offset = table.offset(g).value;
  location.refcount_table_clusters = static_cast<u32>(table.count);
  location.refcount_order = order;
  std::array<std::byte, sizeof location> field;
  store(std::span<std::byte>(field), location);
  // If we stop at this, either table is in force, with its width, and both count all that is used.
  co_await file_.write_location(header_at::refcount_table_offset, field, old_field);
  const cluster_run old_table{header_.refcount_table.value >> g.cluster_bits,
                              header_.refcount_table_clusters};
  auto& overlaps = file_.overlaps();
  overlaps.remove(metadata_kind::refcount_table, old_table.bytes(g));
  std::vector<u64> old_blocks;
  table_.for_each([&](u64, u64 block) {
    store_.forget({block, g.cluster()});
    overlaps.remove(metadata_kind::refcount_block, {block, g.cluster()});
    old_blocks.push_back(block >> g.cluster_bits);
  });
  table_ = std::move(next);
  header_.refcount_table = table.offset(g);
  header_.refcount_table_clusters = static_cast<u32>(table.count);
  header_.g.refcount_order = order;
  first_free_ = 0;
  add_metadata(overlaps);
  for (const u64 block : old_blocks)
    free_later({block, 1}, free_reason::other);
  free_later(old_table, free_reason::other);
}

task<void> cluster_allocator::check_width(unsigned order) {
  (void)co_await plan_width(order);
}

task<void> cluster_allocator::change_width(unsigned order,
                                           const std::function<void(u64, u64)>& progress) {
  BGFS_ASSERT(header_.version >= 3, "version 2 has one width");
  wide_blocks plan = co_await plan_width(order);
  const cluster_run place = co_await place_wide(order, plan);
  result<refcount_table> next = co_await as_result(write_wide(plan, order, place, progress));
  if (!next) {
    if (!file_.is_stopped())
      (void)co_await as_result(free_unlinked(place)); // else it leaks
    co_await fail(std::move(next).error());
  }
  // The old counts, which count the new structures, and these are durable before the switch. From
  // there to the end nothing else changes a count.
  co_await store_.write_refcounts();
  co_await file_.flush();
  result<> switched =
      co_await as_result(switch_width(order, *std::move(next), {place.first, plan.table_clusters}));
  if (switched)
    co_return;
  if (!file_.is_stopped())
    (void)co_await as_result(free_unlinked(place));
  co_await fail(std::move(switched).error());
}

} // namespace bgfs::qcow2
