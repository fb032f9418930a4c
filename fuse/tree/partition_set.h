// SPDX-License-Identifier: MIT
// The partitions of one disk: the table as it is now, and those that somebody has open.
//
// A partition is a window on its disk: the same nodes, the same root, offsets shifted and the end
// bounded. An open one goes on as long as the table names it as it was when it was opened; until
// then nothing but its range is ever read or written through it, whatever the table says.
//
// Used on the loop of the mount; partition_window::may_lease by any thread.
#pragma once

#include "fuse/tree/raw_disk.h"
#include "fuse/tree/residence.h"
#include "graph/base/partitions/file_system.h"
#include "graph/base/partitions/partition_table.h"

#include <atomic>
#include <memory>

namespace bgfs {

// An open partition.
struct partition_window {
  u32 number;
  byte_range place;
  std::string name; // for messages: "web.d/partitions/1"
  // Requests may be served without asking whether the table still names it.
  std::atomic<bool> may_lease{false};

  // What of a range of the partition lies inside it, as a range of the disk.
  [[nodiscard]] byte_range on_disk(byte_range asked) const {
    byte_range part = asked.intersection({0, place.length});
    part.offset += place.offset;
    return part;
  }
};

class partition_set {
public:
  partition_set(raw_disk& of, residence& at) : disk_(of), place_(at) {}
  partition_set(const partition_set&) = delete;
  partition_set& operator=(const partition_set&) = delete;

  using table_pointer = std::shared_ptr<const partition_table>; // shared by who reads it
  // Reads the table anew: who writes one by lease, or through another program, tells nobody.
  task<table_pointer> read();
  // What a part of the disk holds; null: nothing that is known.
  task<const file_system*> look_into(byte_range part);

  // A handle of `number`; not_found. The window is shared by the handle and by who serves it by
  // lease.
  task<std::shared_ptr<partition_window>> open(u32 number, std::string name);
  // From here on every write is told to changed(): what was read before is looked at again.
  void now_watched();
  // ENODEV, unless the table names it as it was when it was opened. Before each request.
  task<void> require_current(const partition_window& window);
  // Bytes of the disk have changed; an empty range: all of them. Before the answer to who did it.
  void changed(byte_range range);

  [[nodiscard]] raw_disk& disk() const { return disk_; }

private:
  template<class Scan>
  auto scan(disk_sample& sample, Scan what)
      -> task<typename std::invoke_result_t<Scan, const disk_sample&>::value_type>;
  task<std::vector<std::byte>> read_bytes(byte_range range);
  task<table_pointer> read_locked();
  void settle_windows();

  raw_disk& disk_;
  residence& place_;
  async_mutex reading_;
  bool is_reading_ = false;
  bool is_stale_ = true;
  std::vector<byte_range> looked_at_; // where the table was read from
  table_pointer table_;
  std::vector<std::weak_ptr<partition_window>> windows_;
};

// Those of all disks that a root shows. Each is shared with its disk, and ends with it.
class partition_sets {
public:
  explicit partition_sets(residence& at) : place_(at) {}
  // `disk` belongs to the root, or is shown beside it.
  [[nodiscard]] partition_set& of(raw_disk& disk);
  void changed(byte_range range);

private:
  residence& place_;
  std::vector<std::weak_ptr<partition_set>> sets_;
};

} // namespace bgfs
