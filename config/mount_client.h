// SPDX-License-Identifier: MIT
// Talking to a mount through its control files, which are all that a command needs: it may run as
// another user, or in a container that shares nothing but the mount.
#pragma once

#include "config/control_tree.h"

namespace bgfs {

class mount_client {
public:
  // The mount on a directory, or on one file. not_found: there is none of bgfs; its process may
  // have died.
  [[nodiscard]] static result<mount_client> find(const std::string& given);

  // The whole text of a file below the mount point, such as ".bgfs/exports" and "web.d/state". Of a
  // mount of one file the same is asked through its attributes.
  [[nodiscard]] result<std::string> read(const std::string& name) const;
  // Writes one command to a control file. The error is the sentence that the mount gives for it.
  [[nodiscard]] result<> command(const std::string& name, const std::string& text) const;
  // The names in a directory, sorted.
  [[nodiscard]] result<std::vector<std::string>> list(const std::string& name) const;
  // What the mount has said about this process last, "" if it said nothing.
  [[nodiscard]] std::string last_sentence(std::string_view verb) const;
  // For messages; of a mount of one file it cannot be opened.
  [[nodiscard]] std::string path(const std::string& name) const;
  // The raw file of a root.
  [[nodiscard]] std::string disk(const std::string& root) const;
  [[nodiscard]] bool is_one_file() const { return tree_.is_attributes(); }
  // The mount point: absolute, without symbolic links.
  [[nodiscard]] const std::string& directory() const { return tree_.place(); }

private:
  explicit mount_client(control_tree tree) : tree_(std::move(tree)) {}
  [[nodiscard]] std::string name_in_tree(const std::string& name) const;
  control_tree tree_;
};

// Where the graph of a mount was read from: an absolute path.
[[nodiscard]] result<std::string> graph_source(const mount_client& mount);

} // namespace bgfs
