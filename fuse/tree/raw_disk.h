// SPDX-License-Identifier: MIT
// A disk as a raw file: what reading, writing, truncating, punching and seeking in MNT/NAME mean.
// A disk has a length that a file does not outgrow (DESIGN.md section 5, "A disk cannot be
// truncated"), unless it is growable.
//
// Errors carry the errno that a process should see. Everything may suspend, except where a method
// is no task. A disk lives on the loop of its nodes: exported_root::run leads there.
#pragma once

#include "config/graph_config.h"
#include "fuse/tree/content_time.h"
#include "graph/base/checked.h"
#include "graph/io/sync.h"
#include "graph/model/graph.h"

#include <algorithm>

namespace bgfs {

class partition_set;

struct disk_policy {
  std::string name;               // for messages: "web"
  std::string how_to_resize = {}; // for messages: "write the new size to /mnt/web.d/size"
  bool is_writable = false;
  bool is_growable = false;
  truncate_policy on_truncate = truncate_policy::refuse;
  cache_mode cache = cache_mode::none;
  bool is_only_a_view = false; // others change what it shows
};

// As stat(2) shows it.
struct disk_extent {
  u64 length = 0;
  u64 allocated = 0; // bytes the host spends on it; the length where it cannot tell
  std::timespec modified{};
  bool follows_others = false; // the length may change without anybody saying so
  // Where space is allocated there may be data: st_blocks 0 makes tar and cp take a file for one
  // big hole without looking.
  [[nodiscard]] u64 blocks() const {
    return length == 0 ? 0 : std::max<u64>(divide_up(allocated, 512), 1);
  }
};

class raw_disk {
public:
  explicit raw_disk(disk_policy policy) : policy_(std::move(policy)) {}
  raw_disk(const raw_disk&) = delete;
  raw_disk& operator=(const raw_disk&) = delete;

  // Attaches to the graph; before that nothing else may be called. After release, or when an edit
  // has released its root, everything fails with ENODEV.
  task<void> attach(node& top, permissions wanted, root_observer* observer);
  task<void> release();
  [[nodiscard]] bool is_attached() const {
    return attached_ != nullptr && attached_->is_attached();
  }
  [[nodiscard]] result<> require_attached() const;
  // Where an edit puts the root it attaches for this disk.
  [[nodiscard]] std::unique_ptr<root>* attachment() { return &attached_; }

  [[nodiscard]] const disk_policy& policy() const { return policy_; }
  void set_policy(disk_policy policy) {
    policy_ = std::move(policy);
    settle_lease();
  }
  // For a file that is being opened: what its requests may be served by, or null.
  [[nodiscard]] std::shared_ptr<lease> lease_of_handles();
  // Whether somebody has to be told of each write, so that none may be served by lease. When it
  // returns, those that were have ended.
  task<void> tell_of_writes(bool must);
  [[nodiscard]] bool tells_of_writes() const { return tells_of_writes_; }
  [[nodiscard]] node& top() const { return attached_->top(); } // while it is attached
  [[nodiscard]] u64 length() const {
    if (!is_attached())
      return 0;
    top().follow_length();
    return top().length();
  }

  // Returns how much was read: less than asked at the end of the disk.
  task<std::size_t> read(u64 offset, std::span<std::byte> bytes);
  // For who reads from attached() itself: what of a read lies inside the disk.
  [[nodiscard]] byte_range readable_part(byte_range range) const;
  [[nodiscard]] root& attached() const { return *attached_; }

  // Returns how much was written: less than asked at the end of a disk that does not grow.
  task<u32> write(u64 offset, std::span<const std::byte> bytes, bool is_durable);
  task<void> flush();
  task<void> flush_changes(); // only if there are any that no flush has covered yet
  task<void> allocate(u32 mode, byte_range range); // fallocate(2)
  // SEEK_DATA, SEEK_HOLE, of a file that ends at `end`, or with the disk.
  task<u64> seek(u64 offset, bool wants_data, u64 end = ~u64{0});
  task<void> truncate_at_open();                  // O_TRUNC
  task<void> set_length(u64 length);              // truncate(2), ftruncate(2)
  task<void> resize(u64 length, bool may_shrink); // the `size` file
  // Copies from another disk of the mount, or within one; returns how much, at least one byte
  // unless the source has ended. What reads as zeroes stays a hole.
  struct copy_source {
    raw_disk& disk;
    loop& home; // where it lives
  };
  task<u64> copy_from(copy_source source, u64 from_offset, u64 to_offset, u64 length);
  // About how many bytes the host spends on a range, never 0 where there is data. It is looked at
  // in a bounded number of pieces; what is behind them counts as a share of the whole.
  task<u64> allocated_within(byte_range range);
  // The bytes the host spends are kept until the next change.
  task<disk_extent> extent();

  [[nodiscard]] content_time& time() {
    note_leased_writes();
    return time_;
  }
  // Its bytes are the same, and take other space.
  void space_changed() { allocated_.reset(); }
  // The node shows other bytes from now on.
  void content_replaced();
  [[nodiscard]] bool is_full() {
    note_leased_writes();
    return is_full_;
  }

  // The kernel writes to the file by itself from begin to end (raw_disk_outside.cpp): times, space
  // and length are those of the file, and each flush goes to the disk.
  task<void> begin_writes_by_kernel();
  task<void> end_writes_by_kernel();
  // Not while the kernel writes to the file of this disk, through whichever root.
  [[nodiscard]] result<> require_resizable() const;

  // When it last changed, as st_mtime.
  task<std::timespec> modified();

  // What is known of its partitions (partition_sets::of), on the loop of the mount; null: nobody
  // has asked.
  std::shared_ptr<partition_set> parts = {};

private:
  class change;
  class reservation;
  task<void> may_change();
  task<u64> allocated_length();
  task<std::optional<std::timespec>> time_of_file();
  task<void> look_at_file();
  [[nodiscard]] error beyond_end(u64 offset) const;
  result<> require_writable() const;
  task<void> grow(u64 length);
  task<void> grow_for_write(u64 end);
  task<void> zero(byte_range range, bool may_unmap);
  task<void> reserve(byte_range range);
  task<void> rewrite(u64 offset, std::span<std::byte> bytes);
  task<void> require_host_space(byte_range range);
  task<void> copy_data(copy_source source, u64 from_offset, u64 to_offset, u64 length);
  task<void> copy_by_host(copy_source source, u64 from_offset, u64 to_offset, u64 length);
  [[nodiscard]] task<u64> count_readable(byte_range range) const;
  void note(const result<>& outcome);
  void settle_lease();
  void note_leased_writes();

  disk_policy policy_;
  std::unique_ptr<root> attached_;
  async_mutex resizing_;
  // Reserving space writes back what it has read; no other change may run meanwhile.
  unsigned changes_running_ = 0;
  bool is_reserving_ = false;
  wait_queue reserved_;
  wait_queue unchanging_;
  content_time time_;
  std::optional<u64> allocated_;
  u64 change_count_ = 0;
  bool is_full_ = false;
  bool has_unflushed_ = false;
  u64 leased_writes_seen_ = 0;
  bool tells_of_writes_ = false;
  bool is_written_by_kernel_ = false;
  std::timespec file_time_{}; // st_mtime of the file, when it was last looked at
};

} // namespace bgfs
