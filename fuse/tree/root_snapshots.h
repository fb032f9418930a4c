// SPDX-License-Identifier: MIT
// The snapshots of a root: what its snapshots/ directory and `ctl` do with them. Internal ones are
// in its image, external ones are images below it (external_snapshots.h). On the loop of the mount,
// by who holds mount_state::looking - of external ones, what changes them is called by who does
// not. Errors say what to do, and carry the errno.
#pragma once

#include "fuse/tree/inode.h"
#include "fuse/tree/snapshot_index.h"
#include "graph/io/sync.h"
#include "graph/model/graph.h"

#include <set>

namespace bgfs {

struct mount_state;
class exported_root;

using snapshot_index_pointer = std::shared_ptr<const snapshot_index>; // by whoever looks at it

class root_snapshots {
public:
  root_snapshots(mount_state& mount, exported_root& of) : mount_(mount), root_(of) {}
  root_snapshots(const root_snapshots&) = delete;
  root_snapshots& operator=(const root_snapshots&) = delete;

  // Opens the root if need be. Empty where the format keeps none.
  task<snapshot_index_pointer> index();

  task<void> create(std::string name);
  task<void> remove(std::string shown_name, u32 pid);
  task<void> rename(std::string from, std::string to);
  // The disk becomes what it was. Nobody may have it open. The kernel is told to forget the former
  // bytes; mount_state::settle_with_kernel waits until it has.
  task<void> revert(std::string shown_name);

  // The disk of an external one.
  task<disk_use> open_external(std::string key, u32 pid);
  // Nobody has the disk open, through whichever root; EBUSY says who.
  [[nodiscard]] result<> require_closed() const;

  // Whoever holds one keeps it from being deleted, until he lets go or the mount ends.
  [[nodiscard]] bool is_held(const std::string& key) const { return held_.contains(key); }
  void hold(const std::string& key) { held_.insert(key); }
  void let_go(const std::string& key) { held_.erase(key); }
  // A process has looked into the directory of one, or was refused an unlink there: it does not
  // delete it.
  void note_lister(const std::string& key, u32 pid) const;

  // For those who change snapshots of several roots: keeps others away.
  task<async_mutex::guard> lock_changes() { return changing_.lock(); }
  [[nodiscard]] result<> require_changeable() const; // the root may be written to
  // EBUSY, ENOTEMPTY: with who is in the way. What nobody uses any more is closed afterwards.
  task<void> require_removable(snapshot_info which, u32 pid);
  task<void> remove_locked(snapshot_info which);
  [[nodiscard]] node& image() const; // while the root is open
  void forget_cached() { cached_.reset(); }

private:
  [[nodiscard]] std::string directory_of(const std::string& key) const;
  task<void> create_locked(std::string name);
  task<void> create_internal(std::string name);
  task<void> remove_internal(std::string shown_name, u32 pid);
  task<void> rename_internal(std::string from, std::string to);
  task<void> revert_internal(std::string shown_name);
  [[nodiscard]] std::vector<std::shared_ptr<exported_root>> myself() const;
  [[nodiscard]] result<> require_not_held(const snapshot_info& which) const;
  task<void> revert_disk(snapshot_info which);

  mount_state& mount_;
  exported_root& root_;
  async_mutex changing_;
  std::set<std::string, std::less<>> held_;
  // What the list was made from.
  snapshot_index_pointer cached_;
  const node* cached_of_ = nullptr;
  u64 cached_version_ = 0;
  u64 cached_shape_ = 0;
};

// With the time that it is now.
[[nodiscard]] new_snapshot named_now(std::string name);
[[nodiscard]] error no_such_snapshot(const exported_root& root, std::string_view shown_name);
[[nodiscard]] error snapshot_exists(const exported_root& root, std::string_view shown_name);

} // namespace bgfs
