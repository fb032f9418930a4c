// SPDX-License-Identifier: MIT
// Internal snapshots (reference section 3.10, rule R8). What each step leaves on the disk is said
// where it is done. All of it happens with the lock held and while the node is drained: no request
// runs that could use what is freed.
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {

namespace {

std::string quoted(const snapshot& s) {
  return fmt::format("snapshot '{}'", s.name);
}

std::vector<u64> without_copied(std::span<const u64> l1) {
  std::vector<u64> plain(l1.begin(), l1.end());
  for (u64& entry : plain)
    entry &= ~entry_copied;
  return plain;
}

// What cannot be, whatever the image's table says, is said before anything is read.
result<> check_lengths(const geometry& g, const snapshot& s) {
  if (*s.disk_length > device_length_max || s.vm_state_length > device_length_max)
    return fail(error_kind::corrupt_image,
                "{} claims a disk of {:#x} bytes and a VM state of {:#x}, more than {:#x}; the "
                "image is corrupt",
                quoted(s), *s.disk_length, s.vm_state_length, device_length_max);
  if (g.l1_entries_for(*s.disk_length) > s.l1_entries)
    return fail(error_kind::corrupt_image,
                "the L1 table of {} has {} entries, too few for its disk of {:#x} bytes; the image "
                "is corrupt",
                quoted(s), s.l1_entries, *s.disk_length);
  return {};
}

} // namespace

std::vector<snapshot_info> image::snapshots() const {
  std::vector<snapshot_info> all;
  for (const snapshot& s : snapshots_)
    all.push_back(to_info(s, header_.disk_length));
  return all;
}

task<std::size_t> image::find(snapshot_key which) const {
  const std::size_t index = co_await find_snapshot(snapshots(), which);
  co_return index;
}

result<> image::check_not_open(const snapshot& s) const {
  const auto open = std::ranges::find(views_, s.id, &open_view::id);
  if (open == views_.end())
    return {};
  return fail(error_kind::busy, "{} is being read by {}; close that first", quoted(s),
              open->holder);
}

// Everything that waits is written, and what is free is free: refcounts say what refers to what.
task<void> image::begin_snapshot_change() {
  BGFS_ASSERT(allocations_.is_empty(), "Q7: nobody writes while snapshots change");
  co_await file_.check_not_stopped();
  co_await check_may_have_snapshots(header_);
  co_await make_writable();
  co_await begin_metadata_change();
  co_await apply_all_frees();
}

result<> check_may_have_snapshots(const header& h) {
  if ((h.incompatible & incompatible_bit::data_file) == 0)
    return {};
  return fail(error_kind::unsupported,
              "an image with an external data file cannot have internal snapshots, since its "
              "clusters are not counted; use an overlay");
}

task<void> image::write_and_flush() {
  co_await store_->write_tables(true);
  store_->needs_flush();
  co_await store_->flush_file();
}

task<cluster_run> image::place_for(u64 bytes) {
  if (bytes == 0)
    co_return cluster_run{};
  const new_clusters taken = co_await allocator_->allocate_exactly(divide_up(bytes, g().cluster()));
  store_->forget(taken.run.bytes(g()));
  co_return taken.run;
}

task<void> image::give_back(cluster_run place) {
  if (place.count != 0 && !file_.is_stopped())
    (void)co_await as_result(allocator_->free_unlinked(place)); // else it leaks
}

task<std::vector<u64>> image::load_snapshot_l1(snapshot s) {
  co_await check_lengths(g(), s);
  const u64 length = u64{s.l1_entries} * 8;
  if (length > file_.length() || s.l1.value > file_.length() - length)
    co_await fail(error_kind::corrupt_image,
                  "the L1 table of {} at {:#x} reaches beyond the end of the file at {:#x}; the "
                  "image is corrupt",
                  quoted(s), s.l1.value, file_.length());
  std::vector<std::byte> bytes(length);
  if (length != 0)
    co_await file_.read_structure(s.l1, bytes, "the L1 table of a snapshot");
  std::vector<u64> l1(s.l1_entries);
  for (u64 i = 0; i < l1.size(); i++)
    l1[i] = load<be64>(bytes, i * 8);
  co_return l1;
}

task<void> image::write_l1_copy(std::span<const u64> l1, cluster_run place, metadata_kinds own) {
  if (l1.empty())
    co_return;
  std::vector<std::byte> bytes(l1.size() * 8);
  for (u64 i = 0; i < l1.size(); i++)
    store(std::span(bytes), be64(l1[i] & ~entry_copied), i * 8);
  co_await file_.write_structure(place.offset(g()), bytes, own);
}

// --- creating ----------------------------------------------------------------------------------

task<std::string> image::create_snapshot(new_snapshot wanted) {
  std::string id = co_await create_locked(wanted);
  if (wanted.vm_state_length == 0)
    co_return id;
  // The snapshot has the VM state; the live disk needs it no more. What cannot be taken away stays
  // until it is overwritten.
  const u64 at = vmstate_offset(header_.disk_length);
  (void)co_await as_result(
      clear({.guest = byte_range{at, wanted.vm_state_length}.widened_to(g().cluster()),
             .rules = {rules(), false, true, false},
             .mode = clear_mode::remove,
             .reason = free_reason::other}));
  co_return id;
}

task<std::string> image::create_locked(const new_snapshot& wanted) {
  const async_mutex::guard lock = co_await store_->lock().lock();
  std::vector<snapshot> all = snapshots_;
  std::string id = next_snapshot_id(all);
  all.push_back({.l1 = {},
                 .l1_entries = static_cast<u32>(l1_.size()),
                 .id = id,
                 .name = wanted.name,
                 .date_seconds = wanted.date_seconds,
                 .date_nanoseconds = wanted.date_nanoseconds,
                 .vm_clock_nanoseconds = wanted.vm_clock_nanoseconds,
                 .vm_state_length = wanted.vm_state_length,
                 .disk_length = header_.disk_length,
                 .icount = wanted.icount,
                 .extra = std::vector<std::byte>(snapshot_extra_written)});
  const std::vector<std::byte> table =
      co_await serialise_snapshots(all, header_.version, header_.disk_length);
  co_await begin_snapshot_change();
  // Whatever makes it impossible is found before anything is written: counts that would overflow,
  // references that cannot be, and, with the places, a full medium.
  reference_walk check{.step = walk_step::check_adding, .whose = "the disk"};
  co_await walk_references(l1_, check);
  snapshot_places places;
  places.l1 = co_await place_for(l1_.size() * 8);
  result<cluster_run> table_place = co_await as_result(place_for(table.size()));
  result<> written;
  reference_walk adding{.step = walk_step::add, .whose = "the disk"};
  if (table_place) {
    places.table = *table_place;
    written = co_await as_result(write_snapshot(std::move(all), places, adding));
  } else {
    written = fail(std::move(table_place).error());
  }
  if (written)
    co_return id;
  co_await undo_sharing(l1_, adding);
  co_await give_back(places.table);
  co_await give_back(places.l1);
  co_return fail(std::move(written).error());
}

task<void> image::write_snapshot(std::vector<snapshot> all, snapshot_places places,
                                 reference_walk& adding) {
  // If we stop after this, there are clusters that nothing refers to.
  co_await write_l1_copy(l1_, places.l1, metadata_kind::inactive_l1);
  // From here on nothing is overwritten in place: the first flag that goes is the end of that. If
  // we stop in between, clusters are counted once more than they are used, and some of the flags
  // that promise otherwise are gone or not: the disk alone has them, so both are safe.
  mapping_changed({0, device_length_max});
  co_await walk_references(l1_, adding);
  for (u64& entry : l1_)
    entry &= ~entry_copied;
  if (!l1_.empty())
    co_await write_active_l1();
  // The new list is written, and all of that is durable, before the header names the list: whoever
  // sees the snapshot sees its tables, the counts, and no flag that would let its data be
  // overwritten.
  all.back().l1 = places.l1.offset(g());
  std::vector<std::byte> bytes =
      co_await serialise_snapshots(all, header_.version, header_.disk_length);
  co_await switch_snapshots_to(std::move(all), std::move(bytes), places.table);
}

// The snapshot did not come to be: what it would have referred to loses that reference again.
task<void> image::undo_sharing(const std::vector<u64>& l1, reference_walk adding) {
  if (file_.is_stopped())
    co_return;
  reference_walk dropping{.step = walk_step::drop, .whose = "the disk", .left = adding.added};
  result<> undone = co_await as_result(walk_references(l1, dropping));
  if (undone)
    undone = co_await as_result(apply_all_frees());
  if (undone)
    (void)co_await as_result(restore_copied());
  // What could not be undone leaks, and is copied before it is written to: slow, but safe.
}

// --- the list ----------------------------------------------------------------------------------

task<void> image::switch_snapshots(std::vector<snapshot> next) {
  std::vector<std::byte> bytes =
      co_await serialise_snapshots(next, header_.version, header_.disk_length);
  const cluster_run place = co_await place_for(bytes.size());
  result<> switched =
      co_await as_result(switch_snapshots_to(std::move(next), std::move(bytes), place));
  if (switched)
    co_return;
  co_await give_back(place);
  co_await fail(std::move(switched).error());
}

task<void> image::switch_snapshots_to(std::vector<snapshot> next, std::vector<std::byte> bytes,
                                      cluster_run place) {
  if (!bytes.empty())
    co_await file_.write_structure(place.offset(g()), bytes, metadata_kind::snapshot_table);
  // If we stop before the header is written, the old list is in force, and the new one leaks.
  co_await write_and_flush();
  const snapshots_location_wire location{static_cast<u32>(next.size()), place.offset(g()).value};
  std::array<std::byte, sizeof location> field;
  store(std::span<std::byte>(field), location);
  const snapshots_location_wire before{header_.snapshot_count, header_.snapshots.value};
  std::array<std::byte, sizeof before> old_field;
  store(std::span<std::byte>(old_field), before);
  // One write within a sector: if we stop at it, one of the lists is in force as a whole. After it
  // the old one leaks until it is freed.
  co_await file_.write_location(header_at::snapshot_count, field, old_field);
  const cluster_run old = clusters_of(g(), {header_.snapshots.value, snapshot_table_bytes_});
  const bool has_old = !snapshots_.empty();
  header_.snapshot_count = static_cast<u32>(next.size());
  header_.snapshots = place.offset(g());
  snapshots_ = std::move(next);
  snapshot_table_bytes_ = bytes.size();
  if (has_old)
    allocator_->free_later(old, free_reason::other);
  co_await check_overlaps_anew();
}

// What is metadata after a change. A snapshot's table that cannot be read is looked after less.
task<void> image::check_overlaps_anew() {
  overlap_map known(g(), file_.overlaps().watched());
  const result<> found = co_await as_result(find_metadata(known));
  (void)found;
  file_.set_overlaps(std::move(known));
}

// --- deleting and renaming ---------------------------------------------------------------------

task<void> image::delete_snapshot(snapshot_key which) {
  const async_mutex::guard lock = co_await store_->lock().lock();
  const std::size_t index = co_await find(which);
  const snapshot gone = snapshots_[index];
  co_await check_not_open(gone);
  const std::vector<u64> l1 = co_await load_snapshot_l1(gone);
  co_await begin_snapshot_change();
  reference_walk check{.step = walk_step::check_dropping, .whose = quoted(gone)};
  co_await walk_references(l1, check);
  std::vector<snapshot> next = snapshots_;
  next.erase(next.begin() + static_cast<i64>(index));
  co_await switch_snapshots(std::move(next));
  // The snapshot is gone. If we stop from here on, what it alone referred to leaks.
  result<> freed = co_await as_result(free_snapshot(gone, l1));
  if (!freed) {
    freed.error().add_context(fmt::format(
        "{} is deleted, but some of its space could not be freed and is lost until the image is "
        "repaired",
        quoted(gone)));
    co_await fail(std::move(freed).error());
  }
}

task<void> image::free_snapshot(snapshot s, const std::vector<u64>& l1) {
  reference_walk dropping{.step = walk_step::drop, .whose = quoted(s)};
  co_await walk_references(l1, dropping);
  if (!l1.empty())
    allocator_->free_later(clusters_of(g(), {s.l1.value, l1.size() * 8}), free_reason::snapshot);
  // Counts go down only now, when the list without the snapshot is durable (R3).
  co_await apply_all_frees();
  co_await restore_copied();
  co_await write_and_flush();
}

task<void> image::rename_snapshot(snapshot_key which, std::string name) {
  const async_mutex::guard lock = co_await store_->lock().lock();
  const std::size_t index = co_await find(which);
  if (snapshots_[index].name == name)
    co_return;
  co_await begin_snapshot_change();
  std::vector<snapshot> next = snapshots_;
  next[index].name = std::move(name);
  co_await switch_snapshots(std::move(next));
  co_await apply_all_frees();
  co_await write_and_flush();
}

// --- reverting ---------------------------------------------------------------------------------

task<void> image::revert_to_snapshot(snapshot_key which) {
  const async_mutex::guard lock = co_await store_->lock().lock();
  const std::size_t index = co_await find(which);
  const snapshot s = snapshots_[index];
  co_await check_may_revert(header_, s);
  const std::vector<u64> l1 = co_await load_snapshot_l1(s);
  co_await begin_snapshot_change();
  reference_walk check{.step = walk_step::check_adding, .whose = quoted(s)};
  co_await walk_references(l1, check);
  const std::vector<u64> former = l1_;
  const cluster_run former_place = clusters_of(g(), {header_.l1.value, former.size() * 8});
  check = {.step = walk_step::check_dropping, .whose = "the disk"};
  co_await walk_references(former, check);
  const cluster_run place = co_await place_for(l1.size() * 8);
  reference_walk adding{.step = walk_step::add, .whose = quoted(s)};
  result<> switched = co_await as_result(switch_disk(s, l1, place, adding));
  if (!switched) {
    co_await undo_sharing(l1, adding);
    co_await give_back(place);
    co_await fail(std::move(switched).error());
  }
  // The disk is the snapshot's. If we stop from here on, what it was before leaks.
  result<> freed = co_await as_result(free_former_disk(former, former_place));
  if (!freed) {
    freed.error().add_context(fmt::format(
        "the disk is that of {} now, but some of the space of what it was could not be freed and "
        "is lost until the image is repaired",
        quoted(s)));
    co_await fail(std::move(freed).error());
  }
}

result<> check_may_revert(const header& h, const snapshot& s) {
  BGFS_TRY(const std::optional<bitmap_directory> bitmaps, h.bitmaps());
  if (bitmaps && bitmaps->count > 0)
    return fail(error_kind::busy,
                "the image has persistent bitmaps ({}), which would not tell what reverting "
                "changes; remove them first",
                bitmaps->count);
  if (h.version < 3 && *s.disk_length != h.disk_length)
    return fail(error_kind::unsupported,
                "{} has {} bytes and the disk {}; a version 2 image with snapshots cannot change "
                "its length, convert it to version 3",
                quoted(s), *s.disk_length, h.disk_length);
  return {};
}

// The reference overwrites the active L1 table, which is longer than a sector: a crash could leave
// some of the old disk and some of the new. Here the new table lies beside the old one, and one
// write within a sector changes the disk's length and table together.
task<void> image::switch_disk(const snapshot& s, std::vector<u64> l1, cluster_run place,
                              reference_walk& adding) {
  // If we stop before the header is written, the old disk is in force. What the snapshot refers to
  // is counted once more than it is used.
  co_await walk_references(l1, adding);
  co_await write_l1_copy(l1, place, metadata_kind::active_l1);
  co_await write_and_flush();
  std::array<std::byte, sizeof(disk_location_wire)> old_field;
  co_await file_.read_structure(host_offset(header_at::disk_length), old_field, "the header");
  auto location = load<disk_location_wire>(std::span<const std::byte>(old_field));
  location.disk_length = *s.disk_length;
  location.l1_entries = static_cast<u32>(l1.size());
  location.l1_offset = place.offset(g()).value;
  std::array<std::byte, sizeof location> field;
  store(std::span<std::byte>(field), location);
  co_await file_.write_location(header_at::disk_length, field, old_field);
  // The disk is the snapshot's, all of it or, had we stopped, none.
  header_.disk_length = *s.disk_length;
  header_.l1_entries = static_cast<u32>(l1.size());
  header_.l1 = place.offset(g());
  l1_ = without_copied(l1);
  inflated_.clear();
  mapping_changed({0, device_length_max});
  co_await check_overlaps_anew();
}

// Nothing that the disk refers to is its own now: the snapshot has it, too. So no flag is missing.
task<void> image::free_former_disk(const std::vector<u64>& l1, cluster_run place) {
  reference_walk dropping{.step = walk_step::drop, .whose = "the former disk"};
  co_await walk_references(l1, dropping);
  if (place.count != 0)
    allocator_->free_later(place, free_reason::other);
  co_await apply_all_frees();
  co_await write_and_flush();
}

} // namespace bgfs::qcow2
