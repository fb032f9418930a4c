// SPDX-License-Identifier: MIT
// Talking to a mount through its control files, which are all that a command needs: it may run as
// another user, or in a container that shares nothing but the mount.
#pragma once

#include "graph/base/result.h"

#include <string>

namespace bgfs {

class mount_client {
public:
  // The mount on a directory. not_found: there is none of bgfs; its process may have died.
  [[nodiscard]] static result<mount_client> find(const std::string& directory);

  // The whole text of a file below the mount point, such as ".bgfs/exports".
  [[nodiscard]] result<std::string> read(const std::string& name) const;
  // Writes one command to a control file. The error is the sentence that the mount gives for it.
  [[nodiscard]] result<> command(const std::string& name, const std::string& text) const;
  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name; }
  [[nodiscard]] const std::string& directory() const { return directory_; }

private:
  explicit mount_client(std::string directory) : directory_(std::move(directory)) {}
  std::string directory_; // absolute, without symbolic links
};

// Where the graph of a mount was read from: an absolute path.
[[nodiscard]] result<std::string> graph_source(const mount_client& mount);

} // namespace bgfs
