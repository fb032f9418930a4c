// SPDX-License-Identifier: MIT
// For the sources of the directories.
#pragma once

#include "fuse/tree/directories.h"
#include "fuse/tree/shown_disk.h"
#include "fuse/tree/view_file.h"

namespace bgfs {

[[nodiscard]] inline std::unexpected<error> no_such_name(std::string_view name) {
  return fail(error_kind::not_found, "there is no '{}' here", name);
}

[[nodiscard]] attributes directory_attributes(const mount_state& mount, const exported_root* root);

// Of one in which directories are made and removed by who may write to the root.
[[nodiscard]] attributes changing_directory_attributes(const mount_state& mount,
                                                       const exported_root& root);

// The entries of a list of views.
void list_views(std::span<const view* const> views, std::vector<directory_entry>& into);

// Below NAME.d.
class root_directory : public directory {
public:
  root_directory(mount_state& mount, exported_root& root)
      : mount_(mount), root_(root), owner_(root.shared_from_this()) {}
  task<attributes> describe() override { co_return directory_attributes(mount_, &root_); }
  exported_root* root_of() override { return &root_; }

protected:
  [[nodiscard]] std::unique_ptr<inode> make_link(std::string target) const {
    return std::make_unique<link>(std::move(target), root_.owner(), root_.group(), mount_.started);
  }
  mount_state& mount_;
  exported_root& root_;

private:
  root_pointer owner_;
};

} // namespace bgfs
