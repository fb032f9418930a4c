// SPDX-License-Identifier: MIT
// Version 2 has no zero clusters: each becomes one that is unallocated, if nothing shows through,
// or holds zeroes. An entry means the same before and after, so wherever we stop the image is sound
// and reads the same: only the entries, which the store writes after counts and data (R1, R2),
// change.
//
// A table that several disks share changes for all of them at once, which is right for all: each
// cluster it names is counted once for each of them. Clusters that are written to are nobody
// else's (Q10).
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {

// Snapshots first: what the disk shares with them is then done.
task<void> image::expand_zeroes(progress_function progress) {
  const bool has_backing = may_have_backing();
  const u64 steps = snapshots_.size() + 1;
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await shielded(apply_all_frees()); // or a table would seem to be shared that no longer is
  for (u64 i = 0; i < snapshots_.size(); i++) {
    const std::vector<u64> l1 = co_await load_snapshot_l1(snapshots_[i]);
    co_await context(expand_tables(l1, {false, has_backing}, {}), "snapshot '{}'",
                     snapshots_[i].name);
    if (progress)
      progress(i + 1, steps);
  }
  co_await expand_tables(l1_, {true, has_backing}, progress);
  mapping_changed({0, device_length_max});
  co_await shielded(apply_all_frees());
}

task<void> image::expand_tables(const std::vector<u64>& l1, expansion how,
                                progress_function progress) {
  for (u64 i = 0; i < l1.size(); i++) {
    const u64 table = l1[i] & entry_offset_mask;
    if (progress)
      progress(i, l1.size());
    if (table == 0)
      continue;
    if (!is_aligned(table, g().cluster()) || table + g().cluster() > file_.length())
      co_await file_.corrupt(fmt::format("L2 table {} at {:#x} is not at a multiple of the cluster "
                                         "size {:#x} inside the file",
                                         i, table, g().cluster()));
    const u64 references = co_await allocator_->refcount(table >> g().cluster_bits);
    if (references == 0)
      co_await file_.corrupt(fmt::format("the refcount of L2 table {} at {:#x} is 0", i, table));
    for (u64 at = 0; at < g().cluster(); at += store_->slice_bytes())
      co_await shielded(expand_slice({host_offset(table) + at, place_in(i, at), references}, how));
    if (allocator_->has_many_frees())
      co_await shielded(apply_all_frees());
  }
}

// What the slice at `at` bytes of a table describes begins there.
guest_offset image::place_in(u64 l1_index, u64 at) const {
  return guest_offset(l1_index * g().l2_span() + (at / g().l2_entry_bytes() << g().cluster_bits));
}

task<void> image::expand_slice(expanded_slice slice, expansion how) {
  const u64 count = store_->slice_bytes() / g().l2_entry_bytes();
  for (u64 i = 0; i < count; i++) {
    const std::span<const std::byte> bytes =
        co_await store_->load_l2(slice.at, metadata_lock::held);
    const l2_entry old = load_entry(g(), bytes, i);
    const subcluster_kind kind = kind_of(rules(), old, 0);
    if (kind == subcluster_kind::invalid)
      co_await file_.corrupt(fmt::format("entry {} of the part at {:#x} of an L2 table is invalid: "
                                         "{}",
                                         i, slice.at.value, explain_invalid(rules(), old)));
    if (!is_zero(kind))
      continue;
    co_await begin_metadata_change();
    const l2_entry now =
        co_await expanded(old, slice.first + i * g().cluster(), slice.references, how);
    const std::span<std::byte> again = co_await store_->load_l2(slice.at, metadata_lock::held);
    store_entry(g(), again, i, now);
    store_->l2_changed(slice.at);
    store_->needs_flush();
    const bool drops = old.has_cluster() && now.host() != old.host();
    for (u64 r = 0; drops && r < slice.references; r++)
      allocator_->free_later({old.host().value >> g().cluster_bits, 1}, free_reason::other);
  }
}

task<l2_entry> image::expanded(l2_entry old, guest_offset guest, u64 references, expansion how) {
  const bool is_own_table = how.is_active && references == 1;
  if (old.has_cluster()) {
    const u64 cluster = old.host().value >> g().cluster_bits;
    const u64 count = co_await allocator_->refcount(cluster);
    // Only the sharers of this table have it, for whom it reads as zeroes: it may hold them.
    if (count == references) {
      co_await write_stored_zeroes(guest, old.host(), g().cluster());
      co_return l2_entry{old.descriptor & ~entry_zero, 0};
    }
  }
  if (!how.has_backing)
    co_return l2_entry{};
  const new_clusters taken = co_await allocator_->allocate(1);
  u64 added = 0;
  for (u64 r = 1; r < references; r++)
    co_await allocator_->add_references(taken.run, added);
  co_await write_stored_zeroes(guest, taken.run.offset(g()), g().cluster());
  co_return l2_entry{taken.run.offset(g()).value | (is_own_table ? entry_copied : 0), 0};
}

} // namespace bgfs::qcow2
