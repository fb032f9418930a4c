// SPDX-License-Identifier: MIT
// Growing and shrinking the disk (reference section 3.13).
#include "drivers/format/qcow2/image.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {

task<void> image::truncate(u64 length, truncate_options options) {
  if (length % 512 != 0)
    co_await fail(error_kind::invalid_argument,
                  "the length of a qcow2 disk must be a multiple of 512, not {}", length);
  if (header_.version < 3 && header_.snapshot_count != 0)
    co_await fail(error_kind::unsupported,
                  "a version 2 image with snapshots cannot change its length; delete its {} "
                  "snapshots or convert it to version 3",
                  header_.snapshot_count);
  if (length == header_.disk_length)
    co_return;
  if (!is_prepared_)
    co_await shielded(prepare_to_write());
  if (length > header_.disk_length) {
    co_await shielded(grow(length, options));
  } else {
    co_await shielded(shrink(length));
  }
}

task<void> image::write_disk_length(u64 length) {
  std::array<std::byte, 8> field;
  store(std::span<std::byte>(field), be64(length));
  co_await file_.write_header(header_at::disk_length, field);
  co_await file_.flush();
  header_.disk_length = length;
}

// The new part is made to read as zeroes before the header says that it is there: if we stop in
// between, the disk has its old length.
task<void> image::grow(u64 length, truncate_options options) {
  const u64 before = header_.disk_length;
  const u64 entries = g().l1_entries_for(length);
  if (entries * 8 > l1_bytes_max)
    co_await fail(error_kind::invalid_argument,
                  "a disk of {} bytes needs an L1 table of {} entries, more than {}; with clusters "
                  "of {} bytes at most {} bytes are possible",
                  length, entries, l1_bytes_max / 8, g().cluster(),
                  l1_bytes_max / 8 * g().l2_span());
  if (options.prealloc != preallocation::off && header_.is_encrypted() && header_.version < 3)
    co_await fail(error_kind::unsupported,
                  "preallocated clusters of an encrypted image would read as random bytes: version "
                  "2 cannot mark them as zeroes; it needs version 3 (compat=1.1)");
  {
    const async_mutex::guard lock = co_await store_->lock().lock();
    co_await begin_metadata_change();
    if (entries > l1_.size())
      co_await context(grow_l1(entries), "growing the L1 table");
  }
  if (header_.has_raw_data_file() && options.prealloc == preallocation::off)
    options.prealloc = preallocation::metadata;
  if (header_.has_data_file())
    co_await context(grow_data_file(before, length, options), "growing the data file");
  if (!options.is_new_overlay)
    co_await context(clear_new_part(before, length, options.prealloc),
                     "clearing the new part of the disk");
  if (options.prealloc != preallocation::off) {
    // In version 2 what hides a longer backing file was written as data, which has its place.
    const u64 hidden = header_.version < 3 ? std::min(length, backing_length()) : 0;
    co_await context(
        preallocate(byte_range::between(std::max(before, hidden), length), options.prealloc),
        "preallocating the new part of the disk");
  }
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await write_back_locked();
  co_await file_.flush();
  co_await write_disk_length(length);
}

// R6.
task<void> image::grow_l1(u64 entries) {
  // Some room for the next time, within the bound.
  const u64 size = std::min(std::max(entries, l1_.size() + l1_.size() / 2), l1_bytes_max / 8);
  std::vector<std::byte> bytes(size * 8);
  for (u64 i = 0; i < l1_.size(); i++)
    store(std::span(bytes), be64(l1_[i]), i * 8);
  const cluster_run old = clusters_of(g(), {header_.l1.value, l1_.size() * 8});
  if (file_.tells())
    co_await file_.tell(debug_event::l1_grow_alloc_table);
  const new_clusters place =
      co_await allocator_->allocate_exactly(divide_up(bytes.size(), g().cluster()));
  const host_offset at = place.run.offset(g());
  store_->forget(place.run.bytes(g()));
  if (file_.tells())
    co_await file_.tell(debug_event::l1_grow_write_table);
  co_await file_.write_structure(at, bytes, metadata_kind::active_l1);
  co_await store_->write_refcounts();
  // If we stop here, the old table is in force and the new one leaks.
  co_await file_.flush();
  l1_location_wire location;
  location.l1_entries = static_cast<u32>(size);
  location.l1_offset = at.value;
  std::array<std::byte, sizeof location> field;
  store(std::span<std::byte>(field), location);
  const l1_location_wire before{static_cast<u32>(l1_.size()), header_.l1.value};
  std::array<std::byte, sizeof before> old_field;
  store(std::span<std::byte>(old_field), before);
  if (file_.tells())
    co_await file_.tell(debug_event::l1_grow_activate_table);
  co_await file_.write_location(header_at::l1_entries, field, old_field);
  file_.overlaps().remove(metadata_kind::active_l1, {header_.l1.value, l1_.size() * 8});
  file_.overlaps().add(metadata_kind::active_l1, {at.value, size * 8});
  l1_.resize(size);
  header_.l1 = at;
  header_.l1_entries = static_cast<u32>(size);
  if (old.count != 0)
    allocator_->free_later(old, free_reason::other);
}

// What lies behind the old end must not come back: the rest of the last cluster, clusters that an
// interrupted shrink left, and what a longer backing file has there.
task<void> image::clear_new_part(u64 before, u64 length, preallocation mode) {
  const u64 edge_end = std::min(length, align_up(before, g().cluster()));
  if (edge_end > before) {
    const byte_range edge = byte_range::between(before, edge_end);
    const bool is_zero_already = co_await reads_as_zero(edge);
    // What the old end cuts through gets its place so, too.
    if (!is_zero_already || mode != preallocation::off)
      co_await write_zero_data(edge);
  }
  if (edge_end == length)
    co_return;
  // To the end of the L1 table: what lies behind the disk is the state of a machine that no longer
  // fits it.
  const byte_range rest = byte_range::between(
      edge_end, std::max(align_up(length, g().cluster()), l1_.size() * g().l2_span()));
  co_await clear({.guest = rest,
                  .rules = {rules(), false, true, false},
                  .mode = clear_mode::remove,
                  .reason = free_reason::other});
  const u64 below = std::min(length, backing_length());
  if (below <= edge_end)
    co_return;
  const byte_range shown = byte_range::between(edge_end, below);
  if (header_.version < 3) {
    co_await write_zero_data(shown);
  } else {
    co_await clear(
        {.guest = shown.widened_to(g().cluster()), .rules = {rules(), true, true, false}});
  }
}

task<void> image::write_zero_data(byte_range guest) {
  const auto zeroes = home_->buffers().zeroes();
  while (!guest.is_empty()) {
    const u64 length = std::min<u64>(guest.length, zeroes.size());
    co_await write(guest.offset, zeroes.first(length), 0);
    guest = byte_range::between(guest.offset + length, guest.end());
  }
}

// The header goes first: if we stop after it, clusters behind the end are still there, which
// readers ignore and a later growth removes. The other order would show zeroes, or the backing
// file, in a disk that has its old length.
task<void> image::shrink(u64 length) {
  const u64 before = header_.disk_length;
  {
    const async_mutex::guard lock = co_await store_->lock().lock();
    co_await begin_metadata_change();
    co_await write_disk_length(length);
  }
  // To the end of the L1 table: the tables are dropped below, and a snapshot's VM state may lie
  // behind the disk.
  const u64 end = align_up(length, g().cluster());
  const byte_range gone = byte_range::between(
      end, std::max({end, align_up(before, g().cluster()), l1_.size() * g().l2_span()}));
  co_await context(clear({.guest = gone,
                          .rules = {rules(), false, true, false},
                          .mode = clear_mode::remove,
                          .reason = free_reason::resize}),
                   "removing what lies behind the new end");
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await drop_l2_tables(g().l1_entries_for(length));
  // The file is cut off when the clusters are free: when those who may still use them have ended,
  // of whom this request is one.
  has_shrunk_ = true;
  co_await write_back_locked();
  if (!allocator_->has_frees())
    co_await trim_file();
  if (header_.has_data_file()) // a longer one is only longer
    (void)co_await as_result(file_.extend_data(length, {}));
}

// R6: the L1 entries are gone from the disk before the tables are freed (Q6).
task<void> image::drop_l2_tables(u64 first_kept) {
  co_await store_->write_tables(!is_lazy_);
  if (file_.tells())
    co_await file_.tell(debug_event::l1_shrink_write_table);
  for (u64 i = first_kept; i < l1_.size(); i++) {
    const u64 table = l1_[i] & entry_offset_mask;
    if (l1_[i] == 0)
      continue;
    co_await write_l1_entry(i, 0);
    if (table == 0 || !is_aligned(table, g().cluster()))
      continue;
    store_->forget({table, g().cluster()});
    file_.overlaps().remove(metadata_kind::active_l2, {table, g().cluster()});
    allocator_->free_later({table >> g().cluster_bits, 1}, free_reason::resize);
  }
  if (file_.tells()) // the refcounts are lowered by what comes next
    co_await file_.tell(debug_event::l1_shrink_free_l2_clusters);
}

// Best effort: the file may stay longer than it needs to be.
task<void> image::trim_file() {
  const u64 clusters = divide_up(file_.length(), g().cluster());
  const result<u64> used = co_await as_result(allocator_->find_used_end(clusters));
  if (!used || *used == 0)
    co_return;
  co_await file_.flush(); // what is cut off is freed on the disk as well
  co_await file_.trim_to(*used << g().cluster_bits);
}

task<void> image::preallocate(byte_range guest, preallocation mode) {
  // The cluster that the old end cuts through has its place (clear_new_part).
  guest = byte_range::between(align_up(guest.offset, g().cluster()),
                              align_up(guest.end(), g().cluster()));
  while (!guest.is_empty()) {
    const u64 slice_end = align_down(guest.offset, slice_span()) + slice_span();
    const byte_range part = byte_range::between(guest.offset, std::min(guest.end(), slice_end));
    co_await preallocate_table(part, mode);
    guest = byte_range::between(part.end(), guest.end());
  }
  may_be_preallocated_ = true;
}

// One slice. The clusters come from the end of the file, where it reads as zeroes.
task<void> image::preallocate_table(byte_range guest, preallocation mode) {
  const guest_offset at(guest.offset);
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await make_l2_writable(g().l1_index(at));
  const u64 count = guest.length >> g().cluster_bits;
  cluster_run place;
  if (header_.has_data_file()) { // which is as long and as preallocated as it has to be
    place = place_in_data_file(at, count);
    allocator_->keep_content(place);
  } else {
    const new_clusters taken = co_await allocator_->allocate_at_end(count);
    place = taken.run;
    truncate_options options;
    options.prealloc = mode == preallocation::metadata ? preallocation::off : mode;
    if (place.bytes(g()).end() > file_.length())
      co_await file_.extend_data(place.bytes(g()).end(), options);
  }
  const byte_range host = place.bytes(g());
  const host_offset slice_at = slice_of(at);
  const std::span<std::byte> slice = co_await store_->load_l2(slice_at, metadata_lock::held);
  for (u64 i = 0; i < place.count; i++) {
    const u64 offset = host.offset + (i << g().cluster_bits);
    const u64 index = index_in_slice(at) + i;
    // With extended entries the subclusters stay what they are: they only have their place.
    const u64 bitmap = load_entry(g(), slice, index).bitmap;
    // What the file has there, decrypted, is not zeroes.
    const bool says_zero = header_.is_encrypted() && !g().is_extended;
    store_entry(g(), slice, index, {offset | entry_copied | (says_zero ? entry_zero : 0), bitmap});
  }
  store_->l2_changed(slice_at);
  mapping_changed(guest);
  store_->needs_flush();
}

} // namespace bgfs::qcow2
