// SPDX-License-Identifier: MIT
// What a guest was told about its disk and when, and whether a disk found after a power cut keeps
// it. Times are instants of one clock that counts the events of all files.
#pragma once

#include "graph/base/byte_range.h"
#include "tests/unit/drivers/qcow2/image_checker.h"

#include <map>
#include <set>
#include <string>
#include <vector>

namespace bgfs::test {

using disk_content = std::vector<std::byte>;

struct kept_snapshot {
  std::string name;
  disk_content disk;
  bool operator==(const kept_snapshot&) const = default;
};
using snapshot_list = std::map<std::string, kept_snapshot>; // by id

class promises {
public:
  // The content when the log begins.
  void begin(disk_content content, snapshot_list snapshots, std::set<std::string> keys);

  [[nodiscard]] const disk_content& disk() const { return disk_; }
  [[nodiscard]] const snapshot_list& snapshots() const { return snapshots_; }
  [[nodiscard]] const std::set<std::string>& keys() const { return keys_; }

  // A request that begins now: from here on its bytes may be on the disk.
  void writes(u64 now, u64 offset, disk_content bytes);
  void clears(u64 now, byte_range range) { writes(now, range.offset, disk_content(range.length)); }
  void resizes(u64 now, u64 length);
  // A flush has returned.
  void flushed(u64 now);

  // What changes as a whole: it is as before or as after, and once it has ended it is as after.
  // What ends with `ends_with_flush` has made durable everything that was written before, too.
  void begins_change(u64 now);
  void becomes(disk_content disk); // the disk as a whole, within a change
  void reverts(const std::string& id) { becomes(snapshots_.at(id).disk); }
  void keeps(std::string id, kept_snapshot s) { snapshots_[std::move(id)] = std::move(s); }
  void forgets(const std::string& id) { snapshots_.erase(id); }
  void renames(const std::string& id, std::string name) {
    snapshots_.at(id).name = std::move(name);
  }
  void has_keys(std::set<std::string> keys) { keys_ = std::move(keys); }
  void ends_change(u64 now);
  void ends_with_flush(u64 now);

  // Bitmaps: from now on one is, or is clean, or is not.
  [[nodiscard]] std::set<std::string> bitmaps() const;
  void adds_bitmap(u64 now, const std::string& name, u64 granularity);
  void clears_bitmap(u64 now, const std::string& name);
  void removes_bitmap(u64 now, const std::string& name);

  // "" if a disk that is cut off after `cut` events may hold this.
  [[nodiscard]] std::string objection(u64 cut, const disk_content& found) const;
  [[nodiscard]] std::string objection(u64 cut, const snapshot_list& found) const;
  // Bitmaps that claim to be up to date have a bit for all in which `disk` differs from when they
  // were clean.
  [[nodiscard]] std::string objection(u64 cut, const disk_content& disk,
                                      const std::map<std::string, image_bitmap>& found) const;
  // Each of these opens the image.
  [[nodiscard]] std::set<std::string> keys_at(u64 cut) const;

private:
  struct flush_point {
    u64 instant;
    disk_content disk;
  };
  struct guest_write {
    u64 begins;
    byte_range range;
    disk_content bytes;
  };
  struct resize {
    u64 begins;
    u64 length;
  };
  struct change {
    u64 begins = 0;
    u64 ends = 0;
    snapshot_list snapshots; // afterwards, as the keys
    std::set<std::string> keys;
    bool is_revert = false;
    disk_content disk; // of a revert
  };
  [[nodiscard]] const flush_point& last_flush(u64 cut) const;
  [[nodiscard]] const change* running(u64 cut) const;
  [[nodiscard]] const change& last_change(u64 cut) const;
  [[nodiscard]] bool may_be_long(u64 length, const flush_point& last, u64 cut) const;
  [[nodiscard]] u64 written_since(const flush_point& last, u64 cut, u64 offset,
                                  const disk_content& found) const;

  disk_content disk_;
  snapshot_list snapshots_;
  std::set<std::string> keys_;
  std::vector<flush_point> flushes_;
  std::vector<guest_write> writes_;
  std::vector<resize> resizes_;
  // From an instant on, until the next of the same name.
  struct known_bitmap {
    u64 begins = 0;
    bool is_there = false;
    u64 granularity = 0;
    disk_content clean; // the disk then
    u64 length = 0;     // how much of it the disk has had ever since
  };
  std::vector<change> changes_; // the first one is what there was
  std::map<std::string, std::vector<known_bitmap>> bitmaps_;
  change now_;
};

} // namespace bgfs::test
