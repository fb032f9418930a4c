// SPDX-License-Identifier: MIT
// Points: frozen instants of a root, or of several at once, kept by a filter over what serves it
// (copy-before-write) for as long as they are wanted. Each begins a bitmap of its name in the same
// instant, and has an increment for every bitmap that could be trusted then. On the loop of the
// mount. Errors say what to do, and carry the errno.
#pragma once

#include "config/whole_file.h"
#include "fuse/tree/inode.h"
#include "fuse/tree/raw_disk.h"
#include "graph/model/edit.h"

#include <list>
#include <memory>

namespace bgfs {

struct mount_state;
struct opener;
class exported_root;

// A raw file of a point: the disk as it was, or what a bitmap said had changed.
struct point_file {
  std::string bitmap; // "": the disk itself
  std::string node_name;
  std::unique_ptr<raw_disk> disk;
};

struct point_of_root {
  std::string name;
  std::timespec made{};
  std::string filter;            // the name of its node
  owned_fd space;                // the nameless file that old bytes go to
  std::optional<u64> limit;      // of what it keeps, bytes
  std::vector<point_file> files; // the disk first
  std::list<opener> users;

  [[nodiscard]] const point_file* find(std::string_view bitmap) const; // null: none
};
// By the root, and by who has one of its files open.
using point_pointer = std::shared_ptr<point_of_root>;

// What the `state` of a point shows.
struct point_state {
  u64 kept = 0;
  std::optional<u64> limit;
  std::string broken; // why it was given up; "": it is all there
};

class root_points {
public:
  root_points(mount_state& mount, exported_root& of) : mount_(mount), root_(of) {}
  ~root_points();
  root_points(const root_points&) = delete;
  root_points& operator=(const root_points&) = delete;

  [[nodiscard]] const std::vector<point_pointer>& all() const { return all_; }
  [[nodiscard]] result<point_pointer> find(std::string_view name) const;
  task<disk_use> open(point_pointer of, std::string bitmap, u32 pid);
  task<point_state> state(point_pointer of);
  void note_lister(const std::string& name, u32 pid) const;
  // The root is being closed, and the nodes with the graph: its files are detached.
  task<void> release();

private:
  friend class point_maker;
  friend task<void> end_points(mount_state& mount,
                               std::vector<std::shared_ptr<exported_root>> roots, std::string name,
                               u32 pid);
  task<void> end(point_pointer gone);
  [[nodiscard]] result<> require_no_lister_of(const point_of_root& p, u32 pid) const;
  [[nodiscard]] result<> require_unused(const point_of_root& p) const;

  mount_state& mount_;
  exported_root& root_;
  std::vector<point_pointer> all_; // oldest first
};

// All of them at one instant, or none. By who holds mount_state::looking alone.
task<void> create_points(mount_state& mount, std::vector<std::shared_ptr<exported_root>> roots,
                         std::string name);
// Whatever stands in the way of any is found before the first is ended. By who holds it alone.
task<void> end_points(mount_state& mount, std::vector<std::shared_ptr<exported_root>> roots,
                      std::string name, u32 pid);

} // namespace bgfs
