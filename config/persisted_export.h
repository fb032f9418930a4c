// SPDX-License-Identifier: MIT
// Exports that a command adds to a mounted graph and takes away again: each is a fragment, a file
// of its own below an `include` pattern of the graph file, so that it is there after a remount. The
// change is applied by a reload; when that is refused, the files are as they were.
//
// Many callers may do this at once: they take turns through a lock on `GRAPH.yaml.lock`, which
// stays beside the graph file. While a change is under way the lock file says which, so that
// whoever comes next can finish or undo what a killed caller has left. What the files look like, if
// we stop:
//
//   add:    .NAME.yaml.new          not included (a hidden name); overwritten by the next
//           intent "add PATH"       undone, unless the mount serves it already
//           NAME.yaml               the same
//   remove: intent "remove PATH"    undone, unless the mount serves it no longer
//           .NAME.yaml.removed      the same; NAME.yaml has this name now
#pragma once

#include "config/mount_client.h"

namespace bgfs {

class persisted_exports {
public:
  // Reads where the graph of the mount lies. The lock is taken by each change.
  [[nodiscard]] static result<persisted_exports> of(const mount_client& mount);

  // `name` is both the root's and the fragment's. The error says why, and that nothing was changed.
  [[nodiscard]] result<> add(const std::string& name, const std::string& fragment) const;
  [[nodiscard]] result<> remove(const std::string& name) const;

private:
  explicit persisted_exports(mount_client mount, std::string graph)
      : mount_(std::move(mount)), graph_(std::move(graph)) {}

  // The path that the graph includes for a fragment of this name.
  [[nodiscard]] result<std::string> place_of(const std::string& name) const;
  class turn;
  [[nodiscard]] result<> add_in_turn(turn& mine, const std::string& name,
                                     const std::string& fragment) const;
  [[nodiscard]] result<> remove_in_turn(turn& mine, const std::string& name) const;
  [[nodiscard]] result<> finish_what_was_left(turn& mine) const;
  // Whether the mount shows what a fragment exports.
  [[nodiscard]] result<bool> serves(const std::string& fragment_path) const;

  mount_client mount_;
  std::string graph_; // absolute
};

} // namespace bgfs
