// SPDX-License-Identifier: MIT
// Persistent bitmaps (spec, "Bitmaps"; reference section 3.9, rule R9).
//
// Before the first change of the disk, or of a bitmap, every bitmap in the image is marked IN_USE:
// from then on the image says itself that it does not know. What is in memory is the truth, and is
// written when the image is closed: bits and tables into clusters of their own, then a directory
// without the mark, and then one write of the header puts that in force. If we stop before it, the
// old directory with its marks is in force; after it, everything it leads to is durable, and so is
// all data that was written before. In neither case a bit is missing that somebody relies on.
#include "drivers/format/qcow2/image.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/spawn.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace bgfs::qcow2 {

namespace {

constexpr u64 run_bytes_max = MiB; // of bits written or read at once

// The header decides where the directory is.
result<header_switch> plan_for(std::span<const std::byte> disk,
                               const std::vector<stored_bitmap>& next, byte_range place) {
  const bitmap_directory directory{static_cast<u32>(next.size()), place};
  return plan_bitmaps_switch(disk, next.empty() ? nullptr : &directory);
}

} // namespace

task<void> image::load_bitmaps() {
  const std::optional<bitmap_directory> known = co_await header_.bitmaps();
  if (!known)
    co_return;
  std::vector<std::byte> directory(known->range.length);
  co_await file_.read_structure(host_offset(known->range.offset), directory,
                                "the bitmap directory");
  bitmaps_ = co_await parse_bitmap_directory(g(), directory, known->count, header_.disk_length);
  std::unordered_set<std::string_view> names;
  for (const stored_bitmap& b : bitmaps_)
    if (!names.insert(b.name).second)
      co_await fail(error_kind::corrupt_image,
                    "two bitmaps have the name '{}'; the image is corrupt", b.name);
  // Tables of a sound image have a place of their own: more of them than the file is long lie on
  // top of each other, and reading them all would take for ever.
  u64 left = file_.length();
  for (const stored_bitmap& b : bitmaps_) {
    if (b.is_in_use)
      continue;
    const u64 length = u64{b.table_entries} * 8;
    if (length > left)
      co_await fail(error_kind::corrupt_image,
                    "the tables of the bitmaps are longer than the file of {:#x} bytes; the image "
                    "is corrupt",
                    file_.length());
    left -= length;
    std::vector<std::byte> table(length);
    co_await context(file_.read_structure(b.table, table, "its table"), "bitmap '{}'", b.name);
    co_await context(check_bitmap_table(g(), table), "bitmap '{}'", b.name);
  }
}

// In place, in one write of which a crash may leave any part: a mark more or less says nothing
// wrong, since no bit has changed yet.
task<void> image::mark_bitmaps() {
  if (std::ranges::all_of(bitmaps_, &stored_bitmap::is_in_use))
    co_return;
  const std::optional<bitmap_directory> known = co_await header_.bitmaps();
  BGFS_ASSERT(known.has_value(), "who has bitmaps has a directory");
  std::vector<std::byte> directory(known->range.length);
  const host_offset at(known->range.offset);
  co_await file_.read_structure(at, directory, "the bitmap directory");
  const std::vector<stored_bitmap> found =
      co_await parse_bitmap_directory(g(), directory, known->count, header_.disk_length);
  mark_bitmaps_in_use(directory, found);
  co_await file_.write_structure(at, directory, metadata_kind::bitmap_directory);
  co_await file_.flush();
  for (stored_bitmap& b : bitmaps_) {
    b.flags |= bitmap_flag::in_use;
    b.is_in_use = true;
  }
}

std::vector<bitmap_definition> image::stored_bitmaps() const {
  std::vector<bitmap_definition> all;
  for (const stored_bitmap& b : bitmaps_) {
    bitmap_definition d{.name = b.name,
                        .granularity = u64{1} << b.granularity_bits,
                        .is_enabled = b.is_auto(),
                        .is_persistent = true};
    if (b.is_in_use) {
      d.inconsistency = "it was not stored after its image was written";
    } else if (!b.is_understood()) {
      d.inconsistency = "it has extra data that is not understood here";
    }
    all.push_back(std::move(d));
  }
  return all;
}

result<> image::check_can_store(std::span<const bitmap_definition> wanted) const {
  if (header_.version < 3)
    return fail(error_kind::unsupported,
                "a version 2 image cannot have bitmaps; convert it to version 3 (compat=1.1)");
  if (wanted.size() > bitmaps_max)
    return fail(error_kind::unsupported, "the image has {} bitmaps, and can have no more",
                bitmaps_max);
  u64 length = 0;
  for (const bitmap_definition& d : wanted)
    length += align_up(sizeof(bitmap_entry_wire) + d.name.size(), 8);
  for (const stored_bitmap& b : bitmaps_)
    length += align_up(b.extra.size(), 8);
  if (length > bitmap_directory_bytes_max)
    return fail(error_kind::unsupported,
                "the names of the bitmaps take {:#x} bytes, and the image can have no more than "
                "{:#x}",
                length, bitmap_directory_bytes_max);
  if (!bitmaps_.empty())
    return {};
  // As the header will be, near enough: that it does not fit is to be found now and not at close.
  BGFS_TRY(std::vector<std::byte> head, serialise_header(header_));
  head.resize(g().cluster());
  std::vector<stored_bitmap> one(1);
  BGFS_TRY([[maybe_unused]] const header_switch planned,
           plan_for(head, one, {g().cluster(), sizeof(bitmap_entry_wire)}));
  return {};
}

stored_bitmap* image::find_stored(std::string_view name) {
  const auto found = std::ranges::find(bitmaps_, name, &stored_bitmap::name);
  return found == bitmaps_.end() ? nullptr : &*found;
}

// --- reading -----------------------------------------------------------------------------------

task<std::vector<u64>> image::read_bitmap_table(stored_bitmap b, u64 entries) {
  std::vector<std::byte> bytes(std::min<u64>(entries, b.table_entries) * 8);
  co_await file_.read_structure(b.table, bytes, "the table of a bitmap");
  co_await check_bitmap_table(g(), bytes);
  std::vector<u64> table(bytes.size() / 8);
  for (u64 i = 0; i < table.size(); i++)
    table[i] = load<be64>(bytes, i * 8);
  co_return table;
}

// What is wrong with a bitmap is no reason to stop writing the disk.
task<void> image::read_bitmap(dirty_bitmap& into) {
  const stored_bitmap* const found = find_stored(into.name());
  BGFS_ASSERT(found != nullptr, "what is incomplete is in the image");
  const std::vector<u64> table =
      co_await read_bitmap_table(*found, bitmap_clusters(g(), into.stored_count()));
  const u64 bits = g().cluster() * 8;
  const buffer bytes = home_->buffers().allocate(g().cluster());
  for (u64 i = 0; i < table.size(); i++) {
    const u64 first = i * bits;
    if (table[i] == bitmap_entry_ones)
      into.add_stored_run(first, bits);
    if (table[i] == 0 || table[i] == bitmap_entry_ones || first >= into.stored_count())
      continue;
    const u64 length = std::min(g().cluster(), divide_up(into.stored_count() - first, 8));
    if (table[i] > file_.length() || length > file_.length() - table[i])
      co_await fail(error_kind::corrupt_image,
                    "entry {} of its table leads to {:#x}, behind the end of the file at {:#x}; "
                    "the bitmap is corrupt: remove it",
                    i, table[i], file_.length());
    const auto part = bytes.bytes().first(length);
    co_await context(file_.file().read(table[i], part), "reading its bits at {:#x}", table[i]);
    into.add_stored(first, part);
  }
  into.completed();
}

// --- storing -----------------------------------------------------------------------------------

task<void> image::begin_bitmap_change() {
  co_await file_.check_not_stopped();
  if (!is_prepared_)
    co_await shielded(prepare_to_write());
}

namespace {

// An image may have tens of thousands of them.
std::unordered_map<std::string_view, std::size_t>
places_by_name(std::span<const stored_bitmap> all) {
  std::unordered_map<std::string_view, std::size_t> places;
  for (std::size_t i = 0; i < all.size(); i++)
    places.emplace(all[i].name, i);
  return places;
}

} // namespace

task<void> image::store_bitmaps(std::span<dirty_bitmap* const> all) {
  const auto stored = places_by_name(bitmaps_);
  const bool has_changed = is_prepared_ || std::ranges::any_of(all, [&](const dirty_bitmap* b) {
                             const auto known = stored.find(b->name());
                             return known == stored.end() || b->has_changed_bits() ||
                                    bitmaps_[known->second].is_auto() != b->is_enabled();
                           });
  if (!has_changed)
    co_return; // the image was not marked, and says what is true
  co_await file_.check_not_stopped();
  for (dirty_bitmap* b : all)
    if (b->has_changed_bits() && !b->is_complete())
      co_await context(read_bitmap(*b), "reading bitmap '{}', to store it", b->name());
  co_await shielded(store_bitmaps_locked(all));
}

task<void> image::store_bitmaps_locked(std::span<dirty_bitmap* const> all) {
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await make_writable();
  co_await begin_metadata_change();
  bitmap_switch change{.next = bitmaps_, .taken = {}, .freed = {}};
  result<> written = co_await as_result(write_bitmaps(all, change));
  if (written)
    written = co_await as_result(switch_bitmaps(change));
  if (!written) {
    for (const cluster_run run : change.taken)
      co_await give_back(run);
    co_await fail(std::move(written).error());
  }
  // Unmarked: the next change marks them again.
  is_prepared_ = false;
  for (dirty_bitmap* b : all)
    b->stored();
  co_await free_bitmap_clusters(std::move(change.freed));
}

task<void> image::write_bitmaps(std::span<dirty_bitmap* const> all, bitmap_switch& change) {
  const auto stored = places_by_name(bitmaps_); // which change.next begins with
  for (const dirty_bitmap* b : all) {
    const auto known = stored.find(b->name());
    const bool is_new = known == stored.end();
    if (is_new)
      change.next.push_back(
          {.name = b->name(),
           .granularity_bits = static_cast<u8>(std::countr_zero(b->granularity()))});
    stored_bitmap* const at = is_new ? &change.next.back() : &change.next[known->second];
    at->flags &= ~(bitmap_flag::in_use | bitmap_flag::automatic);
    at->flags |= b->is_enabled() ? bitmap_flag::automatic : 0;
    at->is_in_use = false;
    if (!is_new && !b->has_changed_bits())
      continue; // what is there is true
    if (!is_new)
      co_await find_freed(*at, change);
    co_await context(write_bitmap(*b, *at, change), "bitmap '{}'", b->name());
  }
}

// Nothing refers to what is written here. If we stop, it leaks.
task<void> image::write_bitmap(const dirty_bitmap& b, stored_bitmap& into, bitmap_switch& change) {
  const u64 bits = g().cluster() * 8;
  const u64 count = b.bits().count();
  // A disk without a byte has a table all the same: none is not allowed.
  std::vector<u64> table(std::max<u64>(bitmap_clusters(g(), count), 1));
  std::vector<u64> mixed;
  const u64 run_max = std::max<u64>(run_bytes_max / g().cluster(), 1);
  u64 clear_at = 0; // the first clear bit, as far as it was looked for
  std::optional<u64> set_at = b.bits().next_set(0);
  while (set_at) {
    const u64 i = *set_at / bits;
    const u64 first = i * bits;
    const u64 end = std::min(first + bits, count);
    if (clear_at <= first)
      clear_at = b.bits().next_clear(first).value_or(count);
    // Not for the part behind the end of the disk: QEMU takes it for dirty when the disk grows.
    if (clear_at >= end && end == first + bits) {
      table[i] = bitmap_entry_ones;
    } else {
      mixed.push_back(i);
    }
    set_at = b.bits().next_set(end);
    if (mixed.size() == run_max || (!set_at && !mixed.empty())) {
      co_await write_bitmap_run(b, mixed, table.data(), change);
      mixed.clear();
    }
  }
  std::vector<std::byte> bytes(table.size() * 8);
  for (u64 i = 0; i < table.size(); i++)
    store(std::span(bytes), be64(table[i]), i * 8);
  const cluster_run place = co_await place_for(bytes.size());
  change.taken.push_back(place);
  co_await file_.write_structure(place.offset(g()), bytes, metadata_kind::none);
  into.table = place.offset(g());
  into.table_entries = static_cast<u32>(table.size());
}

// Parts of the bits, each a cluster; consecutive clusters in one write.
task<void> image::write_bitmap_run(const dirty_bitmap& b, std::span<const u64> indices, u64* table,
                                   bitmap_switch& change) {
  while (!indices.empty()) {
    const new_clusters taken = co_await allocator_->allocate(indices.size());
    const cluster_run place = taken.run;
    change.taken.push_back(place);
    store_->forget(place.bytes(g()));
    const buffer bytes = home_->buffers().allocate(place.count << g().cluster_bits);
    for (u64 i = 0; i < place.count; i++) {
      const u64 at = i << g().cluster_bits;
      b.bits().serialise(indices[i] * g().cluster() * 8, bytes.bytes().subspan(at, g().cluster()));
      table[indices[i]] = (place.first + i) << g().cluster_bits;
    }
    co_await file_.write_structure(place.offset(g()), bytes.bytes(), metadata_kind::none);
    indices = indices.subspan(place.count);
  }
}

// What the bitmap occupies now. What contradicts itself stays where it is: it leaks.
task<void> image::find_freed(stored_bitmap b, bitmap_switch& change) {
  const cluster_run place = clusters_of(g(), {b.table.value, u64{b.table_entries} * 8});
  for (u64 c = place.first; c < place.end(); c++)
    change.freed.push_back(c);
  const u64 length = u64{b.table_entries} * 8;
  if (b.table.value > file_.length() || length > file_.length() - b.table.value)
    co_return;
  std::vector<std::byte> table(length);
  co_await context(file_.file().read(b.table.value, table), "reading the table of bitmap '{}'",
                   b.name);
  for (u64 i = 0; i < b.table_entries; i++) {
    const u64 entry = load<be64>(table, i * 8);
    if (entry > bitmap_entry_ones && check_bitmap_table(g(), std::span(table).subspan(i * 8, 8)))
      change.freed.push_back(entry >> g().cluster_bits);
  }
}

// --- the directory -----------------------------------------------------------------------------

task<void> image::remove_bitmaps(std::vector<std::string> names) {
  co_await file_.check_not_stopped();
  co_await shielded(remove_bitmaps_locked(std::move(names)));
}

task<void> image::remove_bitmaps_locked(std::vector<std::string> names) {
  const async_mutex::guard lock = co_await store_->lock().lock();
  bitmap_switch change;
  for (const stored_bitmap& b : bitmaps_)
    if (std::ranges::find(names, b.name) == names.end())
      change.next.push_back(b);
  if (change.next.size() == bitmaps_.size())
    co_return;
  co_await make_writable();
  co_await begin_metadata_change();
  for (const stored_bitmap& b : bitmaps_)
    if (std::ranges::find(names, b.name) != names.end())
      co_await find_freed(b, change);
  result<> switched = co_await as_result(switch_bitmaps(change));
  if (!switched) {
    for (const cluster_run run : change.taken)
      co_await give_back(run);
    co_await fail(std::move(switched).error());
  }
  co_await free_bitmap_clusters(std::move(change.freed));
}

// Another directory is put in force.
task<void> image::switch_bitmaps(bitmap_switch& change) {
  const std::optional<bitmap_directory> before = co_await header_.bitmaps();
  co_await switch_directory(change);
  if (!before)
    co_return;
  const cluster_run old = clusters_of(g(), before->range);
  for (u64 c = old.first; c < old.end(); c++)
    change.freed.push_back(c);
}

task<void> image::switch_directory(bitmap_switch& change) {
  const std::vector<std::byte> directory = serialise_bitmap_directory(change.next);
  const cluster_run place = co_await place_for(directory.size());
  if (place.count != 0)
    change.taken.push_back(place);
  if (!directory.empty())
    co_await file_.write_structure(place.offset(g()), directory, metadata_kind::bitmap_directory);
  // Bits, tables, directory and their counts are durable before the header leads to them, and so is
  // all data of the disk. If we stop before the header is written, they leak.
  co_await write_and_flush();
  const std::vector<std::byte> disk = co_await read_first_cluster();
  header_switch planned =
      co_await plan_for(disk, change.next, {place.offset(g()).value, directory.size()});
  // One write within a sector decides: the old directory is in force, or the new one, as a whole.
  co_await switch_header(std::move(planned));
  u64 at = 0;
  for (stored_bitmap& b : change.next) {
    b.flags_at = at + bitmap_flags_at;
    at += align_up(sizeof(bitmap_entry_wire) + b.extra.size() + b.name.size(), 8);
  }
  bitmaps_ = std::move(change.next);
  co_await check_overlaps_anew();
}

// The header leads to none of these any more. Of an image whose tables name what is not a bitmap's
// nothing is freed that is known to be something else, or counted by nobody.
task<void> image::free_bitmap_clusters(std::vector<u64> clusters) {
  std::ranges::sort(clusters);
  const auto [first, last] = std::ranges::unique(clusters);
  clusters.erase(first, last);
  for (const u64 c : clusters) {
    const cluster_run run{c, 1};
    if (file_.overlaps().find(run.bytes(g()), metadata_kind::none))
      continue;
    const u64 count = co_await allocator_->refcount(c);
    if (count != 0)
      allocator_->free_later(run, free_reason::other);
  }
  result<> freed = co_await as_result(apply_all_frees());
  if (freed)
    co_return;
  freed.error().add_context("the bitmaps of the image are changed, but some of their former space "
                            "could not be freed and is lost until the image is repaired");
  co_await fail(std::move(freed).error());
}

value image::describe_bitmaps() const {
  value::list all;
  for (const stored_bitmap& b : bitmaps_) {
    value::list flags;
    if (b.is_in_use)
      flags.emplace_back("in-use");
    if (b.is_auto())
      flags.emplace_back("auto");
    value one = value::map();
    one.set("flags", std::move(flags));
    one.set("name", b.name);
    one.set("granularity", u64{1} << b.granularity_bits);
    all.push_back(std::move(one));
  }
  return value(std::move(all));
}

} // namespace bgfs::qcow2
