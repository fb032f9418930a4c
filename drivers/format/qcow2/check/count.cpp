// SPDX-License-Identifier: MIT
// Every reference to every cluster. What is wrong with an entry is told here; whether it is counted
// all the same follows what everybody else counts, so that refcounts that others have put right are
// right for us.
#include "drivers/format/qcow2/bitmap_table.h"
#include "drivers/format/qcow2/check/checker.h"

namespace bgfs::qcow2 {

namespace {

// Spec, "L1 table entry", "Standard Cluster Descriptor", "refcount table entry": reserved bits.
constexpr u64 l1_reserved = 0x7f000000000001ff;
constexpr u64 l2_reserved = 0x3f000000000001fe;
constexpr u64 table_reserved = 0x1ff;
constexpr u64 table_offset = ~table_reserved;

} // namespace

task<void> checker::count_everything() {
  table_bytes_left_ = 4 * file_length_ + 64 * MiB;
  count(0, g().cluster());
  co_await count_active();
  co_await count_snapshots();
  count(header_.snapshots.value, snapshot_bytes_);
  if (counts_refcounts_)
    count(header_.refcount_table.value, refcount_table_.size() * 8);
  if (const header_extension* e = header_.find(extension_type::crypto_header);
      e != nullptr && e->bytes.size() == sizeof(crypto_extension_wire)) {
    const auto area = load<crypto_extension_wire>(e->bytes);
    count(area.offset, area.length);
  }
  co_await count_bitmaps();
  if (counts_refcounts_)
    count_blocks();
}

// One more reference for each cluster that the range touches.
void checker::count(u64 at, u64 length, u64 times) {
  if (length == 0)
    return;
  // The file may end within its last cluster, and so may what is stored there.
  const auto end = checked_add(at, length);
  if (!end || *end >= file_length_ + g().cluster()) {
    corrupt(times,
            "ERROR: counting reference for region exceeding the end of the file by one cluster or "
            "more: offset 0x{:x} size 0x{:x}",
            at, length);
    return;
  }
  for (u64 c = cluster_of(at); c <= cluster_of(*end - 1); c++) {
    counted_end_ = std::max(counted_end_, c + 1);
    const u64 excess = counts_.add(c, times);
    if (excess == 0 || is_silent_)
      continue;
    result_.corruptions += excess;
    tell("ERROR: overflow cluster offset=0x{:x}", c << g().cluster_bits);
    tell("Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a "
         "clean copy if the image cannot be opened for writing");
  }
}

task<void> checker::count_active() {
  co_await count_l1(header_.l1, l1_, 1);
  co_await for_active_tables(&checker::count_l2);
}

task<void> checker::count_snapshots() {
  if (has_data_file() && !snapshots_.empty())
    corrupt(1, "ERROR {} snapshots in image with data file", snapshots_.size());
  std::vector<u64> entries;
  for (const auto& [index, times] : snapshot_groups_) {
    const snapshot_record& s = snapshots_[index];
    co_await read_snapshot_l1(s, entries);
    co_await count_l1(s.l1, entries, times);
    co_await step_done();
  }
  co_await for_snapshot_tables(&checker::count_l2);
}

// The table itself, and what is wrong with its entries. The L2 tables follow (walk.cpp).
task<void> checker::count_l1(host_offset l1, std::span<const u64> entries, u64 times) {
  count(l1.value, entries.size() * 8, times);
  for (const u64 entry : entries) {
    if ((entry & l1_reserved) != 0)
      corrupt(times, "ERROR found L1 entry with reserved bits set: {:x}", entry);
    const u64 at = entry & entry_offset_mask;
    if (!is_aligned(at, g().cluster()))
      corrupt(times, "ERROR l2_offset={:x}: Table is not cluster aligned; L1 entry corrupted", at);
  }
  co_await give_way();
}

bool checker::count_entry(const table_visit& v, u64 index, l2_entry entry, fragments& f) {
  if (entry.is_compressed()) {
    count_compressed(v, index, entry, f);
    return false;
  }
  if ((entry.descriptor & l2_reserved) != 0)
    corrupt(v.weight, "ERROR found l2 entry with reserved bits set: {:x}", entry.descriptor);
  if (names_cluster(entry))
    return count_cluster(v, entry, f);
  if ((entry.bitmap & all_allocated) != 0)
    corrupt(v.weight, "ERROR: Unallocated cluster has non-zero subcluster allocation map");
  return false;
}

// In a data file, offset 0 is a place like any other; elsewhere the flag alone counts for nothing.
bool checker::names_cluster(l2_entry entry) const {
  return !entry.is_compressed() &&
         (entry.host().value != 0 || (has_data_file() && entry.is_copied()));
}

// It names a cluster that holds nothing: without the offset it says the same.
bool checker::is_misplaced_without_data(l2_entry entry) const {
  if (!entry.has_cluster() || entry.host().is_aligned_to(g().cluster()))
    return false;
  return g().is_extended ? (entry.bitmap & all_allocated) == 0
                         : (entry.descriptor & entry_zero) != 0;
}

bool checker::count_cluster(const table_visit& v, l2_entry entry, fragments& f) {
  const u64 at = entry.host().value;
  if ((entry.bitmap & entry.bitmap >> 32) != 0)
    corrupt(v.weight,
            "ERROR offset={:x}: Allocated cluster has corrupted subcluster allocation bitmap", at);
  if (is_misplaced_without_data(entry)) {
    corrupt(repairs_all() ? 1 : v.weight,
            "{} offset={:x}: Preallocated cluster is not properly aligned; L2 entry corrupted.",
            repairs_all() ? "Repairing" : "ERROR", at);
    if (repairs_all())
      return true;
  } else if (!is_aligned(at, g().cluster())) {
    corrupt(v.weight,
            "ERROR offset={:x}: Data cluster is not properly aligned; L2 entry corrupted.", at);
  }
  f.allocated++;
  if (f.next != 0 && f.next != at)
    f.fragmented++;
  f.next = at + g().cluster();
  if (!has_data_file())
    count(at, g().cluster(), v.weight);
  return false;
}

void checker::count_compressed(const table_visit& v, u64 index, l2_entry entry, fragments& f) {
  const unsigned x = 62 - (g().cluster_bits - 8);
  const u64 at = entry.descriptor & ((u64{1} << x) - 1);
  if (entry.is_copied())
    corrupt(v.weight,
            "ERROR: coffset=0x{:x}: copied flag must never be set for compressed clusters", at);
  if (has_data_file()) {
    corrupt(v.weight, "ERROR compressed cluster {} with data file, entry=0x{:x}", index,
            entry.descriptor);
    return;
  }
  if (entry.bitmap != 0) {
    corrupt(v.weight,
            "ERROR compressed cluster {} with non-zero subcluster allocation bitmap, entry=0x{:x}",
            index, entry.descriptor);
    return;
  }
  const u64 sectors = (entry.descriptor & (entry_compressed - 1)) >> x;
  count(at, (sectors + 1) * 512 - at % 512, v.weight);
  f.allocated++;
  f.compressed++;
  f.fragmented++; // they never are what follows something
}

task<void> checker::count_bitmaps() {
  const std::optional<bitmap_directory> known = co_await header_.bitmaps();
  if (!known)
    co_return;
  count(known->range.offset, known->range.length);
  std::vector<std::byte> directory(known->range.length);
  co_await read_table(known->range.offset, directory, "the bitmap directory");
  const std::vector<stored_bitmap> bitmaps =
      co_await parse_bitmap_directory(g(), directory, known->count, header_.disk_length);
  for (const stored_bitmap& b : bitmaps)
    co_await count_bitmap_table(b.table, b.table_entries);
}

task<void> checker::count_bitmap_table(host_offset at, u64 entries) {
  std::vector<std::byte> table(entries * 8);
  count(at.value, table.size());
  co_await read_table(at.value, table, "the table of a bitmap");
  for (u64 i = 0; i < entries; i++) {
    const u64 entry = load<be64>(table, i * 8);
    if (!check_bitmap_table(g(), std::span(table).subspan(i * 8, 8))) {
      corrupt(1, "ERROR bitmap table entry {} is invalid: {:x}", i, entry);
    } else if ((entry & entry_offset_mask) != 0) {
      count(entry & entry_offset_mask, g().cluster());
    }
  }
}

// Last, since nothing else may use the cluster of a refcount block.
void checker::count_blocks() {
  for (u64 i = 0; i < refcount_table_.size(); i++)
    if (refcount_table_[i] != 0)
      count_block(i);
}

void checker::count_block(u64 index) {
  const u64 entry = refcount_table_[index];
  const u64 at = entry & table_offset;
  if ((entry & table_reserved) != 0) {
    refcounts_corrupt("ERROR refcount table entry {} has reserved bits set", index);
    needs_rebuild_ = true;
  } else if (!is_aligned(at, g().cluster())) {
    refcounts_corrupt(
        "ERROR refcount block {} is not cluster aligned; refcount table entry corrupted", index);
    needs_rebuild_ = true;
  } else if (cluster_of(at) >= clusters_end()) {
    refcounts_corrupt("{} refcount block {} is outside image",
                      repairs_all() ? "Repairing" : "ERROR", index);
    needs_rebuild_ = needs_rebuild_ || repairs_all();
  } else if (counts_.has(cluster_of(at))) {
    count(at, g().cluster());
    const u64 references = counts_[cluster_of(at)];
    if (references == 1 || is_silent_)
      return;
    result_.corruptions++;
    refcount_corruptions_++;
    tell("ERROR refcount block {} refcount={}", index, references);
    needs_rebuild_ = true;
  }
}

} // namespace bgfs::qcow2
