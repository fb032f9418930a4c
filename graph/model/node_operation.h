// SPDX-License-Identifier: MIT
// What can be done to a node as a whole, and who forbids it at the moment (reference section 1.13,
// op_blockers): a node that became another's backing, or that a job works on, is not resized,
// snapshotted or used as the target of another job.
#pragma once

#include "graph/base/result.h"

#include <list>
#include <string>

namespace bgfs {

enum class node_operation : u8 {
  backup_source,
  backup_target,
  change,
  commit_source,
  commit_target,
  dataplane,
  drive_del,
  eject,
  external_snapshot,
  internal_snapshot,
  internal_snapshot_delete,
  mirror_source,
  mirror_target,
  resize,
  stream,
  replace,
  dirty_bitmap, // adding, changing and removing them
};
inline constexpr unsigned node_operation_count = 17;
[[nodiscard]] std::string_view to_string(node_operation what);

using node_operation_set = u32;
[[nodiscard]] constexpr node_operation_set bit(node_operation what) {
  return node_operation_set{1} << static_cast<unsigned>(what);
}
inline constexpr node_operation_set all_node_operations =
    (node_operation_set{1} << node_operation_count) - 1;
// What may still be done to a node that others have as their backing.
inline constexpr node_operation_set allowed_as_backing =
    bit(node_operation::commit_target) | bit(node_operation::stream) |
    bit(node_operation::dirty_bitmap) | bit(node_operation::backup_source) |
    bit(node_operation::backup_target);

// What moves the data of a node elsewhere, or lets it be looked at through something else. Not
// possible while the kernel reads its file by itself.
inline constexpr node_operation_set moves_data =
    bit(node_operation::change) | bit(node_operation::commit_source) |
    bit(node_operation::drive_del) | bit(node_operation::eject) |
    bit(node_operation::external_snapshot) | bit(node_operation::mirror_source) |
    bit(node_operation::mirror_target) | bit(node_operation::replace);
// What has to see each write, too. Not possible while the kernel writes to its file by itself;
// whose writes lengthen it, so that `resize` is left to who is asked for it (fuse/tree/raw_disk).
inline constexpr node_operation_set needs_to_see_writes =
    all_node_operations & ~bit(node_operation::resize) & ~bit(node_operation::dataplane);

// The blockers of one node.
class operation_blockers {
public:
  struct blocker {
    node_operation_set forbidden;
    std::string reason; // "it is the backing of node 'web'"
  };
  using token = std::list<blocker>::iterator;

  token add(node_operation_set forbidden, std::string reason) {
    return all_.insert(all_.end(), {forbidden, std::move(reason)});
  }
  void remove(token t) { all_.erase(t); }
  // The reason of the first that forbids it; null: nobody does.
  [[nodiscard]] const std::string* find(node_operation what) const;
  [[nodiscard]] const std::list<blocker>& all() const { return all_; }

private:
  std::list<blocker> all_;
};

} // namespace bgfs
