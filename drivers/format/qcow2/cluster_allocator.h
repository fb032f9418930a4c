// SPDX-License-Identifier: MIT
// Which host clusters are in use: the refcount table and its blocks, allocation, and freeing.
//
// Freeing is the dangerous half. A cluster that nothing in memory refers to any more may still be
// referred to on the disk, or be about to be read or written by a request that looked it up before.
// So a freed cluster keeps its refcount, and nobody can get it, until (Q6)
//   - the metadata without the reference is durable (R3), and
//   - every request that was running when it was freed has ended.
// Only then its refcount goes down and the host gets to know (R12). A crash before that is a leak.
//
// Everything here needs metadata_store::lock(), except the functions that do not suspend.
#pragma once

#include "drivers/format/qcow2/metadata_store.h"
#include "drivers/format/qcow2/refcount_table.h"

#include <functional>

namespace bgfs::qcow2 {

// Why clusters are freed; decides whether the host may take their space back (reference 3.5).
enum class free_reason : u8 {
  request,  // the guest discarded them
  snapshot, // a snapshot was deleted
  other,    // tables that moved
  rewrite,  // replaced by a copy; the space is wanted again soon, so it is never given back
  resize,   // cut off; always given back
};

struct discard_policy {
  bool request = false;
  bool snapshot = true;
  bool other = false;
  [[nodiscard]] bool passes(free_reason reason) const {
    switch (reason) {
    case free_reason::request:
      return request;
    case free_reason::snapshot:
      return snapshot;
    case free_reason::other:
      return other;
    case free_reason::rewrite:
      return false;
    case free_reason::resize:
      return true;
    }
    return false;
  }
};

struct new_clusters {
  cluster_run run;
  bool reads_zero = false; // never written before: the file reads as zeroes there
};

class cluster_allocator {
public:
  cluster_allocator(host_file& file, metadata_store& store, header& h, discard_policy policy);

  // Reads the refcount table. Once, at open.
  task<void> load_table();
  // Where the table and its blocks are.
  void add_metadata(overlap_map& known) const;
  void set_policy(discard_policy policy) { policy_ = policy; }

  task<u64> refcount(u64 cluster);
  // Whether every cluster of the run, all of which are in use, may be referred to `more` times
  // more; ends the task as corrupt if one is not in use.
  task<void> check_room_for(cluster_run run, u64 more);
  // One more reference to every cluster of the run. Each that got it is counted in `added`, also
  // when it fails half-way.
  task<void> add_references(cluster_run run, u64& added);
  // Between 1 and `wanted` consecutive clusters, now with refcount 1.
  task<new_clusters> allocate(u64 wanted);
  // All of them in one run.
  task<new_clusters> allocate_exactly(u64 count);
  // The same behind everything used so far, so that they read as zeroes.
  task<new_clusters> allocate_at_end(u64 count);
  // So many bytes, at most a cluster, for a compressed cluster: behind those of the one before
  // where there is room. Each host cluster they lie in is counted once more.
  task<byte_range> allocate_packed(u64 length);
  // Gives back what was allocated and never referred to.
  task<void> free_unlinked(cluster_run run);

  // One reference is gone; see above for what happens when.
  void free_later(cluster_run run, free_reason reason);
  // The clusters stay where they are, but their content does not matter any more: they lie in the
  // external data file, if there is one.
  void discard_later(cluster_run run, free_reason reason);
  // Their content matters again.
  void keep_content(cluster_run run);
  // Whether apply_frees has anything to do now.
  [[nodiscard]] bool has_ready_frees() const;
  [[nodiscard]] bool has_frees() const { return !frees_.empty(); }
  // So many that the next allocation should wait for them.
  [[nodiscard]] bool has_many_frees() const;
  // The caller has written the tables and flushed the file since the last free_later.
  task<void> apply_frees();

  // refcount_width.cpp. Goes on with counts of 2^order bits. The caller has applied all frees and
  // written the refcounts; header fields as on the disk. Fails, with nothing changed, if a count
  // does not fit or the table would be too large. `progress` is told blocks.
  task<void> check_width(unsigned order);
  task<void> change_width(unsigned order, const std::function<void(u64, u64)>& progress);

  // Somebody else has made clusters free on the disk.
  void forget_where_free() { first_free_ = packed_at_ = 0; }
  // The end of the last cluster ever used, as far as is known without looking.
  [[nodiscard]] u64 used_end() const { return fresh_from_ << header_.g.cluster_bits; }
  // The end of the last cluster with a refcount, below `limit`.
  task<u64> find_used_end(u64 limit);
  // How many of the first `limit` clusters are in use; stops counting at `enough`.
  task<u64> count_used(u64 limit, u64 enough);

private:
  struct freed {
    cluster_run run;
    u64 tag; // request_list::newest when it was freed
    free_reason reason;
    bool is_discard_only;
  };

  void wait_with(freed entry);
  task<cluster_run> find_free(u64 from, u64 least, u64 most);
  task<new_clusters> take(u64 from, u64 least, u64 most);
  task<bool> ensure_blocks(cluster_run run);
  task<void> create_block(u64 block, u64 cluster);
  task<void> write_block(u64 block, u64 cluster, bool is_own, bool& is_unknown);
  task<void> grow_table(u64 entries_least);
  task<u64> packed_room();
  task<void> raise(cluster_run run);
  task<void> not_counted(u64 cluster);
  task<void> lower_step(freed& entry, std::vector<cluster_run>& unused);
  task<std::span<std::byte>> load_block(u64 block);
  // A block of the new width that has a count in it.
  struct wide_blocks {
    std::vector<u64> indices; // in order
    u64 table_clusters = 0;
    [[nodiscard]] u64 clusters() const { return table_clusters + indices.size(); }
  };
  task<wide_blocks> plan_width(unsigned order);
  task<void> fill_block(std::span<std::byte> block, unsigned order, u64 index);
  task<refcount_table> write_wide(const wide_blocks& plan, unsigned order, cluster_run place,
                                  const std::function<void(u64, u64)>& progress);
  task<cluster_run> place_wide(unsigned order, wide_blocks& plan);
  task<void> switch_width(unsigned order, refcount_table next, cluster_run table);
  [[nodiscard]] u64 entries() const { return header_.g.block_entries(); }
  task<void> check_allocated(cluster_run run);

  host_file& file_;
  metadata_store& store_;
  header& header_;
  discard_policy policy_;
  refcount_table table_;     // host offsets of the blocks; 0: none
  std::vector<freed> frees_; // in the order they were freed
  u64 waiting_clusters_ = 0; // in frees_
  u64 first_free_ = 0;       // every cluster below is in use
  u64 fresh_from_ = 0;       // no cluster from here on was ever written
  u64 packed_at_ = 0; // where the next compressed cluster may begin; 0: in a cluster of its own
};

} // namespace bgfs::qcow2
