// SPDX-License-Identifier: MIT
// Disks that are opened beside the live image of a root when somebody looks at them - a snapshot,
// the state of a machine, what a bitmap marks -, each as a node of its own over the image, or one
// of its backing images, and closed after their last user. On the loop of the mount; the nodes live
// where the root's do.
#pragma once

#include "fuse/tree/inode.h"
#include "graph/base/value.h"
#include "graph/model/graph.h"

#include <functional>
#include <list>
#include <map>

namespace bgfs {

struct mount_state;
struct opener;

struct side_disk_request {
  std::string key;  // which of the root's disks it is: opened once, however many use it
  std::string name; // for messages: "web.d/snapshots/before/disk"
  std::string_view driver;
  value given; // its options; its `file` is the image of the root
  // Instead of a node of its own: this one of the configuration, which is opened with what it needs
  // unless it is open already.
  std::string configured = {};
  std::timespec modified{};
  // Called on the loop of the nodes: before it is opened, and when nobody can change what it shows
  // any more, to see that it is what was meant.
  std::function<task<void>(node& image)> before = {};
  std::function<result<>(node& image)> verify = {};
};

class side_disks {
public:
  side_disks(mount_state& mount, exported_root& of) : mount_(mount), root_(of) {}
  ~side_disks();
  side_disks(const side_disks&) = delete;
  side_disks& operator=(const side_disks&) = delete;

  // The root is open. By who holds mount_state::looking.
  task<disk_use> open(side_disk_request request, u32 pid);
  // Null: nobody uses one whose key begins so.
  [[nodiscard]] const opener* user_of(std::string_view key_prefix) const;
  // Those that nobody uses any more are closed when it returns. The second, by who holds
  // mount_state::opening.
  task<void> close_unused();
  task<void> close_unused_locked();
  // The roots of those that show nodes of the configuration (side_disk_request::configured).
  [[nodiscard]] std::vector<const root*> over_configured_nodes() const;
  // Detaches all of them: the root is being closed, and the nodes with the graph.
  task<void> release();
  // Closes all of them, used or not: whoever has one open is told that it is gone. By who holds
  // mount_state::opening.
  task<void> close_all_locked();

private:
  struct entry;
  class use;
  using entry_pointer = std::shared_ptr<entry>; // shared by the list and by the uses of it
  [[nodiscard]] disk_use use_of(entry_pointer of, u32 pid);
  task<void> shielded_open(entry& made, side_disk_request& request);
  task<void> open_below(entry& made, side_disk_request& request);
  task<void> open_own_node(entry& made, side_disk_request& request);
  task<void> open_configured(entry& made, const std::string& name);
  static task<void> close_below(entry& gone);
  task<void> close(std::vector<entry_pointer> gone);
  void last_user_left();

  mount_state& mount_;
  exported_root& root_;
  std::map<std::string, entry_pointer, std::less<>> entries_;
};

} // namespace bgfs
