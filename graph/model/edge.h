// SPDX-License-Identifier: MIT
// An edge leads from a parent (a node, or a root: an export, a command) to a child node. It carries
// what the parent takes and shares, and all I/O of the parent goes through it.
#pragma once

#include "graph/model/faces.h"

#include <string>

namespace bgfs {

class lease;
class node;

class edge {
public:
  edge(std::string name, child_role roles, node* parent, node& child);
  ~edge();
  edge(const edge&) = delete;
  edge& operator=(const edge&) = delete;

  // The requests of node.h, on the child.
  task<void> read(u64 offset, std::span<std::byte> bytes) const;
  task<void> write(u64 offset, std::span<const std::byte> bytes, write_flags flags = 0) const;
  task<void> write_zeroes(byte_range range, write_flags flags = 0) const;
  task<void> copy_from(bytes_of_file source, u64 to_offset) const;
  task<void> discard(byte_range range) const;
  task<void> flush() const;
  task<void> truncate(u64 length, truncate_options options = {}) const;
  task<void> copy_up(byte_range range, std::span<std::byte> into) const;
  task<void> prefetch(byte_range range) const;
  [[nodiscard]] u64 length() const;

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] child_role roles() const { return roles_; }
  [[nodiscard]] bool has_role(child_role r) const { return (roles_ & r) != 0; }
  [[nodiscard]] node* parent() const { return parent_; } // null: a root
  [[nodiscard]] node& child() const { return *child_; }
  [[nodiscard]] const permissions& granted() const { return granted_; }
  // Who this is, for messages: "node 'web' as its 'file'", "export 'web'".
  [[nodiscard]] std::string describe() const;

  // While it is frozen no edit may lead it elsewhere or take it away: a job relies on the chain.
  // Counted.
  void freeze() { frozen_++; }
  void thaw() {
    BGFS_ASSERT(frozen_ > 0);
    frozen_--;
  }
  [[nodiscard]] bool is_frozen() const { return frozen_ > 0; }
  // What is read through the parent stays the same while the child is written to: a job sees to it
  // that all it writes there is what the parent holds itself. In force with the next edit.
  void let_child_change(bool may) { child_may_change_ = may; }
  [[nodiscard]] bool child_may_change() const { return child_may_change_; }
  // Stays where it is when its node is replaced: the edge of whoever does the replacing, or of who
  // reads what that very node keeps.
  void stay_at_node() { stays_ = true; }
  // Of a root's edge: what others may know about it without asking; null: nothing.
  void set_lease(lease* l) { lease_ = l; }
  [[nodiscard]] lease* root_lease() const { return lease_; }
  [[nodiscard]] bool stays_at_node() const { return stays_; }
  // The image of the parent names the child, not the graph.
  [[nodiscard]] bool is_named_by_image() const { return is_named_by_image_; }

private:
  friend class graph;
  friend class graph_transaction;
  friend class node;
  friend class permission_plan;
  // For edits, which put right what else follows from it.
  void leave_child();
  void lead_to(node& child);
  std::string name_;
  child_role roles_;
  node* parent_;
  node* child_;
  permissions granted_;
  unsigned frozen_ = 0;
  bool stays_ = false;
  bool child_may_change_ = false;
  bool is_named_by_image_ = false;
  lease* lease_ = nullptr;
};

} // namespace bgfs
