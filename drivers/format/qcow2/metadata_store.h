// SPDX-License-Identifier: MIT
// Cached L2 slices and refcount blocks, and the order in which they reach the disk.
//
// A span that a load returns is valid until the next await of whoever got it: a page may be reused
// as soon as others run. Whoever changes metadata holds lock() from reading it to marking it
// changed, so that nothing changes under a change; readers need no lock.
//
// What the disk looks like at any moment (Q4):
//   R1 a refcount is durable before an entry that relies on it: write_tables writes all changed
//      refcount blocks and flushes the file before it writes an L2 page;
//   R2 so is the data of newly linked clusters: the same flush covers it, since the data was
//      written before the page was marked with `needs_flush`;
//   R3 a refcount goes down after the reference to the cluster is durably gone: the allocator frees
//      after write_tables and one more flush (cluster_allocator.h), never in between.
// So there is one dependency, of L2 pages on everything written before, and no cycle (R4).
#pragma once

#include "drivers/format/qcow2/host_file.h"
#include "drivers/format/qcow2/table_cache.h"
#include "graph/io/sync.h"

namespace bgfs::qcow2 {

enum class metadata_lock : bool { not_held, held };

class metadata_store {
public:
  metadata_store(host_file& file, std::unique_ptr<metadata_region> region);

  // Serialises everything that changes metadata. First of the driver's locks; data I/O happens
  // without it.
  [[nodiscard]] async_mutex& lock() { return lock_; }

  // The L2 slice (a page-sized part of a table) at `at` if it is cached.
  [[nodiscard]] std::optional<std::span<const std::byte>> cached_l2(host_offset at);
  task<std::span<std::byte>> load_l2(host_offset at, metadata_lock holds);
  // Reads a slice that will be wanted soon, if there is a page for it and it is not there. What
  // goes wrong is told to whoever wants it then.
  task<void> prefetch_l2(host_offset at);
  task<std::span<std::byte>> load_refcounts(host_offset block);

  // The span just loaded was changed. Needs the lock.
  void l2_changed(host_offset at);
  void refcounts_changed(host_offset block);
  // Only went down: nothing relies on it.
  void refcounts_lowered(host_offset block);
  // Entries of the slice now rely on refcounts or data that may not be durable (R1, R2).
  void needs_flush() { region_->header().needs_flush_before_l2 = 1; }

  // Forgets cached parts of clusters that get another meaning (Q3).
  void forget(byte_range host);

  // Writes every changed page, in the order above. Needs the lock. `writes_refcounts` is false
  // while lazy refcounts leave them to the dirty bit.
  task<void> write_tables(bool writes_refcounts);
  task<void> write_refcounts();
  // Makes everything written so far durable, unless it is already. Needs the lock.
  task<void> flush_file();

  void drop_unused();
  // Goes on with other memory; what was cached is forgotten. Everything was written and flushed,
  // and nothing is being loaded.
  void use_region(std::unique_ptr<metadata_region> region) noexcept;
  [[nodiscard]] bool has_changes() const;
  [[nodiscard]] u64 slice_bytes() const { return l2_.page_bytes(); }
  [[nodiscard]] metadata_region& region() { return *region_; }
  [[nodiscard]] const table_cache& l2_cache() const { return l2_; }
  [[nodiscard]] const table_cache& refcount_cache() const { return refcounts_; }

  // While refcounts are left to the dirty bit, evicting an L2 page need not write them first.
  void set_lazy(bool is_lazy) { is_lazy_ = is_lazy; }

private:
  task<std::span<std::byte>> load(table_cache& cache, host_offset at, metadata_lock holds);
  task<void> read_page(table_cache& cache, u32 page, host_offset at);
  task<bool> fill(table_cache& cache, u32 page, host_offset at);
  task<void> make_room(table_cache& cache, metadata_lock holds);
  task<void> write_pages(table_cache& cache);
  task<void> write_adjacent(table_cache& cache, std::vector<u32> pages);
  void mark_changed(table_cache& cache, host_offset at);

  host_file& file_;
  std::unique_ptr<metadata_region> region_;
  table_cache l2_;
  table_cache refcounts_;
  async_mutex lock_;
  wait_queue load_ended_;
  bool is_lazy_ = false;
};

} // namespace bgfs::qcow2
