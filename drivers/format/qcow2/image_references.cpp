// SPDX-License-Identifier: MIT
// Walking all that an L1 table refers to, to count it once more or once less. Everything here runs
// with metadata_store::lock() held and the node drained.
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {
namespace {

// Requests of this node wait until the change is done; others on the loop have their turn. What a
// cancelled change has begun it ends, or takes back, all the same.
task<void> give_way(time_slice& slice) {
  if (slice.is_used_up())
    co_await shielded(slice.next());
}

} // namespace

task<void> image::walk_references(std::span<const u64> l1, reference_walk& walk) {
  for (u64 i = 0; i < l1.size() && walk.left > 0; i++) {
    const u64 table = l1[i] & entry_offset_mask;
    if (table == 0)
      continue;
    if (!is_aligned(table, g().cluster()) || table + g().cluster() > file_.length())
      co_await file_.corrupt(fmt::format("L2 table {} of {} at {:#x} is not at a multiple of the "
                                         "cluster size {:#x} inside the file",
                                         i, walk.whose, table, g().cluster()));
    co_await walk_table(host_offset(table), walk);
  }
}

task<void> image::walk_table(host_offset table, reference_walk& walk) {
  const host_reference itself{host_reference::kind::l2_table, {table.value >> g().cluster_bits, 1}};
  for (u64 at = 0; at < g().cluster(); at += store_->slice_bytes()) {
    co_await walk_slice(table + at, walk);
    co_await give_way(walk.slice);
  }
  // The table comes after what it refers to: once dropped it may be gone. All steps go in one
  // order, so that the first references that were added can be dropped again.
  co_await visit(itself, walk);
}

task<void> image::walk_slice(host_offset slice, reference_walk& walk) {
  const std::span<const std::byte> bytes = co_await store_->load_l2(slice, metadata_lock::held);
  const result<std::vector<host_reference>> found = references_of(rules(), bytes);
  if (!found)
    co_await file_.corrupt(fmt::format("in the part at {:#x} of an L2 table of {}, {}", slice.value,
                                       walk.whose, found.error().message()));
  for (const host_reference& r : *found)
    co_await visit(r, walk);
  if (walk.step != walk_step::add)
    co_return;
  const std::span<std::byte> again = co_await store_->load_l2(slice, metadata_lock::held);
  if (clear_copied(g(), again))
    store_->l2_changed(slice);
}

task<void> image::visit(const host_reference& what, reference_walk& walk) {
  switch (walk.step) {
  case walk_step::check_adding:
  case walk_step::check_dropping:
    co_await check_room(what, walk);
    break;
  case walk_step::add:
    co_await allocator_->add_references(what.clusters, walk.added);
    break;
  case walk_step::drop:
    co_await drop(what, walk);
    break;
  }
}

// Nothing of it may be known to be something else: counted down to nothing it would be overwritten.
task<void> image::check_room(const host_reference& what, reference_walk& walk) {
  using kind = host_reference::kind;
  const metadata_kinds own = what.what == kind::l2_table
                                 ? metadata_kind::active_l2 | metadata_kind::inactive_l2
                                 : metadata_kind::none;
  if (const auto hit = file_.overlaps().find(what.clusters.bytes(g()), own))
    co_await file_.corrupt(fmt::format("{} refers to the cluster at {:#x}, which holds {}",
                                       walk.whose, hit->cluster.value,
                                       describe_metadata(hit->kinds)));
  const bool adds = walk.step == walk_step::check_adding;
  if (!adds || what.what != kind::compressed) {
    co_await allocator_->check_room_for(what.clusters, adds ? 1 : 0);
    co_return;
  }
  // Many compressed clusters may lie in one. In a sound image they are no more than its count, so
  // only those that are counted past the half may overflow.
  for (u64 c = what.clusters.first; c < what.clusters.end(); c++) {
    const u64 count = co_await allocator_->refcount(c);
    const u64 more = count > g().refcount_max() / 2 ? ++walk.crowded[c] : 1;
    co_await allocator_->check_room_for({c, 1}, more);
  }
}

task<void> image::drop(host_reference what, reference_walk& walk) {
  what.clusters.count = std::min(what.clusters.count, walk.left);
  if (what.clusters.count == 0)
    co_return;
  walk.left -= what.clusters.count;
  const byte_range host = what.clusters.bytes(g());
  if (what.what == host_reference::kind::compressed)
    inflated_.forget(host); // Q9
  if (what.what == host_reference::kind::l2_table) {
    const u64 count = co_await allocator_->refcount(what.clusters.first);
    if (count == 1)
      store_->forget(host); // Q3
  }
  allocator_->free_later(what.clusters, free_reason::snapshot);
  // The table in force does not have them any more, and nobody runs: they may go at any time.
  if (allocator_->has_many_frees())
    co_await apply_all_frees();
}

task<void> image::apply_all_frees() {
  co_await store_->write_tables(true);
  co_await file_.flush();
  co_await allocator_->apply_frees();
  co_await store_->write_refcounts();
}

// The flag may be missing at any time, which costs a copy; it must not be there wrongly. So if we
// stop anywhere in here, nothing is lost.
task<void> image::restore_copied() {
  bool has_changed = false;
  time_slice slice;
  for (u64& entry : l1_) {
    const u64 table = entry & entry_offset_mask;
    if (table == 0 || !is_aligned(table, g().cluster()))
      continue;
    const u64 count = co_await allocator_->refcount(table >> g().cluster_bits);
    if (count != 1)
      continue; // shared, and so is all it refers to
    has_changed = has_changed || (entry & entry_copied) == 0;
    entry |= entry_copied;
    for (u64 at = 0; at < g().cluster(); at += store_->slice_bytes()) {
      co_await restore_copied_in(host_offset(table) + at);
      co_await give_way(slice);
    }
  }
  if (has_changed)
    co_await write_active_l1();
}

task<void> image::restore_copied_in(host_offset slice) {
  struct candidate {
    u64 index;
    u64 cluster;
  };
  std::vector<candidate> candidates;
  const std::span<const std::byte> bytes = co_await store_->load_l2(slice, metadata_lock::held);
  for (u64 i = 0; i < bytes.size() / g().l2_entry_bytes(); i++) {
    const l2_entry entry = load_entry(g(), bytes, i);
    if (entry.has_cluster() && !entry.is_copied() &&
        kind_of(rules(), entry, 0) != subcluster_kind::invalid)
      candidates.push_back({i, entry.host().value >> g().cluster_bits});
  }
  std::vector<u64> alone;
  for (const candidate& c : candidates) {
    const u64 count = co_await allocator_->refcount(c.cluster);
    if (count == 1)
      alone.push_back(c.index);
  }
  if (alone.empty())
    co_return;
  const std::span<std::byte> again = co_await store_->load_l2(slice, metadata_lock::held);
  for (const u64 i : alone) {
    l2_entry entry = load_entry(g(), again, i);
    entry.descriptor |= entry_copied;
    store_entry(g(), again, i, entry);
  }
  store_->l2_changed(slice);
}

// Entries lie within a sector, and whichever of them reach the disk, they name the same tables.
task<void> image::write_active_l1() {
  std::vector<std::byte> bytes(l1_.size() * 8);
  for (u64 i = 0; i < l1_.size(); i++)
    store(std::span(bytes), be64(l1_[i]), i * 8);
  co_await file_.write_structure(header_.l1, bytes, metadata_kind::active_l1);
}

} // namespace bgfs::qcow2
