// SPDX-License-Identifier: MIT
// The order of a repair. What the disk looks like if we stop here:
//
//   1 invalid entries lose their offset   each is 8 or 16 bytes in one sector, which say the same
//                                         to a reader before and after; what they named leaks
//     flush
//   2 refcounts, in place                 each is the old, wrong one or the right one. What is
//                                         raised is in use, what is lowered is not: the entries of
//                                         1 are gone for good, so nothing waits for anything else
//     or new ones, beside the old         nobody looks at them before one sector of the header
//                                         says so, when they are durable (rebuild.cpp)
//     flush
//   3 COPIED flags                        set only when the refcount 1 is durable; cleared ones
//   only
//                                         make writers copy
//     flush
//   4 dirty and corrupt bits cleared      only if nothing is left that would need them
//     flush
//
// So at every moment the image is no worse than it was found, and a repair that was stopped is done
// by doing it again.
#include "drivers/format/qcow2/check/checker.h"

namespace bgfs::qcow2 {

task<void> checker::repair() {
  if (entries_to_clear_ > 0)
    co_await clear_entries();
  if (needs_rebuild_ && mode_ == check_mode::repair_leaks) {
    tell("ERROR need to rebuild refcount structures");
    co_await fail(error_kind::corrupt_image,
                  "the refcounts are too broken to give back leaked clusters alone; 'bgfs check -r "
                  "all' makes new ones");
  }
  if (needs_rebuild_) {
    co_await rebuild();
  } else if (result_.leaks != 0 || result_.corruptions != 0) {
    co_await adjust();
  }
}

// Counts again for the window that begins there, without telling anybody.
task<void> checker::recount_silently(u64 first) {
  is_silent_ = true;
  counts_.begin(first);
  co_await count_everything();
  is_silent_ = false;
}

task<void> checker::adjust() {
  bool is_counted = counts_.is_everything();
  for (u64 first = 0;; first = counts_.end()) {
    if (!is_counted)
      co_await recount_silently(first);
    is_counted = false;
    co_await compare_window(true);
    if (counts_.is_last())
      break;
  }
  co_await flush();
}

task<void> checker::clear_entries() {
  bool is_counted = counts_.is_everything();
  for (u64 first = 0;; first = counts_.end()) {
    if (!is_counted)
      co_await recount_silently(first);
    is_counted = false;
    table_bytes_left_ = 4 * file_length_ + 64 * MiB;
    is_silent_ = true;
    co_await for_active_tables(&checker::clear_invalid);
    co_await for_snapshot_tables(&checker::clear_invalid);
    is_silent_ = false;
    if (counts_.is_last())
      break;
  }
  co_await flush();
  if (!counts_.is_everything())
    co_await recount_silently(0);
}

// A table is changed only if it is nothing but a table.
task<void> checker::clear_invalid(table_visit v) {
  if (!counts_.has(cluster_of(v.at)))
    co_return; // in another window
  const std::span<std::byte> table = co_await read_l2(v.at);
  u64 cleared = 0;
  for (u64 i = 0; i < table.size() / g().l2_entry_bytes(); i++) {
    const l2_entry entry = load_entry(g(), table, i);
    if (!is_misplaced_without_data(entry))
      continue;
    const bool needs_flag = header_.version >= 3 || !header_.backing_file.empty();
    l2_entry empty{needs_flag ? entry_zero : 0, 0};
    if (g().is_extended)
      empty = {0, entry.bitmap & all_zero};
    store_entry(g(), table, i, empty);
    cleared++;
  }
  if (cleared == 0)
    co_return;
  if (!is_aligned(v.at, g().cluster()) || counts_[cluster_of(v.at)] != v.weight) {
    result_.check_errors++;
    co_await fail(error_kind::corrupt_image,
                  "the L2 table at {:#x} cannot be repaired, because something else lies in its "
                  "cluster",
                  v.at);
  }
  co_await write(v.at, table, "an L2 table");
  result_.corruptions -= cleared;
  result_.corruptions_fixed += cleared;
}

// R10: what the bits stand for is durable by now.
task<void> checker::finish() {
  co_await flush();
  const u64 kept = header_.incompatible & ~(incompatible_bit::dirty | incompatible_bit::corrupt);
  if (!result_.is_sound() || header_.version < 3 || kept == header_.incompatible)
    co_return;
  std::array<std::byte, 8> bytes;
  store(std::span<std::byte>(bytes), be64(kept));
  co_await write(header_at::incompatible, bytes, "the feature bits");
  co_await flush();
  header_.incompatible = kept;
}

} // namespace bgfs::qcow2
