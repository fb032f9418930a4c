// SPDX-License-Identifier: MIT
// .bgfs/snapshots/NAME/: a link for each root to its own snapshot of that name.
#include "fuse/tree/directory_common.h"
#include "fuse/tree/group_snapshots.h"

namespace bgfs {
namespace {

class group_snapshot_directory final : public directory {
public:
  group_snapshot_directory(mount_state& mount, std::string name)
      : mount_(mount), name_(std::move(name)) {}

  task<attributes> describe() override {
    (void)co_await roots_with_it();
    co_return directory_attributes(mount_, nullptr);
  }
  task<std::vector<directory_entry>> list() override {
    const std::vector<root_pointer> roots = co_await roots_with_it();
    std::vector<directory_entry> entries;
    for (const root_pointer& r : roots)
      entries.push_back({r->name(), S_IFLNK});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string root_name) override {
    const std::vector<root_pointer> roots = co_await roots_with_it();
    for (const root_pointer& r : roots)
      if (r->name() == root_name)
        co_return std::make_unique<link>(
            fmt::format("../../../{}.d/snapshots/{}", root_name, name_), mount_.owner, mount_.group,
            mount_.started);
    co_await no_such_name(root_name);
    co_return nullptr;
  }
  void opened_by(u32 pid) override { note_group_lister(mount_, name_, pid); }
  error refuse_unlink(const std::string& name, u32) override {
    return {
        error_kind::permission,
        fmt::format("'{}/{}' cannot be unlinked: a snapshot of all roots is deleted as a whole, "
                    "with rmdir of its directory, that of one root in its own snapshots/",
                    path(), name)};
  }

private:
  task<std::vector<root_pointer>> roots_with_it() {
    std::vector<root_pointer> roots = co_await group_with(mount_, name_);
    if (roots.empty())
      co_await no_such_name(name_);
    co_return roots;
  }
  mount_state& mount_;
  std::string name_;
};

class group_snapshots_directory final : public directory {
public:
  explicit group_snapshots_directory(mount_state& mount) : mount_(mount) {}

  task<attributes> describe() override {
    attributes a = directory_attributes(mount_, nullptr);
    a.mode |= 0200;
    a.link_count = 1;
    co_return a;
  }
  task<std::vector<directory_entry>> list() override {
    const std::vector<std::string> names = co_await group_names(mount_);
    std::vector<directory_entry> entries;
    for (const std::string& name : names)
      entries.push_back({name, S_IFDIR});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    const std::vector<root_pointer> roots = co_await group_with(mount_, name);
    if (roots.empty())
      co_await no_such_name(name);
    co_return std::make_unique<group_snapshot_directory>(mount_, std::move(name));
  }
  [[nodiscard]] graph_change changes_graph() const override {
    return has_external_group(mount_) ? graph_change::by_itself : graph_change::none;
  }
  task<void> make(std::string name, u32 pid) override {
    return create_group_snapshot(mount_, std::move(name), pid);
  }
  task<void> remove(std::string name, u32 pid) override {
    return remove_group_snapshot(mount_, std::move(name), pid);
  }
  task<void> rename(std::string from, std::string to, u32) override {
    co_await fail(error_kind::permission,
                  "'{}' cannot be renamed to '{}' in all roots at once; rename it in each of "
                  "NAME.d/snapshots/",
                  from, to);
  }
  error refuse_unlink(const std::string& name, u32) override {
    return {error_kind::permission,
            fmt::format("'{}/{}' is a snapshot of all roots; rmdir deletes it", path(), name)};
  }

private:
  mount_state& mount_;
};

} // namespace

std::unique_ptr<inode> make_group_snapshots_directory(mount_state& mount) {
  return std::make_unique<group_snapshots_directory>(mount);
}

} // namespace bgfs
