// SPDX-License-Identifier: MIT
// The mount point, its .bgfs, the raw files, and their control directories.
#include "fuse/tree/directory_common.h"

namespace bgfs {

attributes directory_attributes(const mount_state& mount, const exported_root* root) {
  attributes a;
  a.mode = S_IFDIR | (root != nullptr ? root->directory_mode() : 0555);
  a.owner = root != nullptr ? root->owner() : mount.owner;
  a.group = root != nullptr ? root->group() : mount.group;
  a.modified = mount.started;
  a.link_count = 2;
  return a;
}

// A link count of 1 says nothing of how many there are: they come and go.
attributes changing_directory_attributes(const mount_state& mount, const exported_root& root) {
  attributes a = directory_attributes(mount, &root);
  a.mode |= root.full_mode() & 0222;
  a.link_count = 1;
  return a;
}

void list_views(std::span<const view* const> views, std::vector<directory_entry>& into) {
  for (const view* v : views)
    into.push_back({std::string(v->name), S_IFREG});
}

namespace {

constexpr std::string_view service_name = ".bgfs";
constexpr std::string_view control_suffix = ".d";
constexpr std::string_view jobs_name = "jobs";
constexpr std::string_view snapshots_name = "snapshots";
constexpr std::string_view points_name = "points";

class root_file final : public disk_file {
public:
  root_file(mount_state& mount, exported_root& root)
      : mount_(mount), root_(root), owner_(root.shared_from_this()) {}

  task<attributes> describe() override {
    if (root_.phase() == root_phase::unopened) {
      const std::optional<disk_extent> seen = co_await root_.look_from_outside();
      if (seen && root_.phase() == root_phase::unopened)
        co_return with(*seen);
    }
    // On demand means: at the first look that cannot do without.
    if (root_.phase() == root_phase::unopened || root_.phase() == root_phase::opening)
      (void)co_await as_result(root_.open(0));
    raw_disk* const disk = root_.disk();
    if (disk == nullptr)
      co_return with({.modified = mount_.started});
    const disk_extent extent = co_await root_.place().run([&] { return disk->extent(); });
    attributes a = with(extent);
    a.kernel_may_keep = root_.phase() == root_phase::open && !extent.follows_others &&
                        !root_.has_partition_writers();
    co_return a;
  }
  void introduced() override { root_.inode = number(); }

  task<disk_use> disk(u32 pid) override {
    co_await root_.open(pid);
    co_return disk_use{root_.disk()};
  }
  exported_root* root_of() override { return &root_; }
  shown_content content() const override { return shown_content::live; }

private:
  [[nodiscard]] attributes with(const disk_extent& extent) const {
    attributes a;
    a.mode = S_IFREG | root_.mode();
    a.owner = root_.owner();
    a.group = root_.group();
    a.length = extent.length;
    a.modified = extent.modified;
    a.blocks = extent.blocks();
    return a;
  }

  mount_state& mount_;
  exported_root& root_;
  root_pointer owner_;
};

class control_directory final : public root_directory {
public:
  using root_directory::root_directory;

  task<attributes> describe() override {
    attributes a = directory_attributes(mount_, &root_);
    a.kernel_may_keep = root_.phase() == root_phase::open;
    co_return a;
  }
  void introduced() override { root_.directory_inode = number(); }

  task<std::vector<directory_entry>> list() override {
    std::vector<directory_entry> entries = {{"bitmaps", S_IFDIR},
                                            {"layers", S_IFDIR},
                                            {"nodes", S_IFDIR},
                                            {"partitions", S_IFDIR},
                                            {std::string(points_name), S_IFDIR},
                                            {std::string(snapshots_name), S_IFDIR}};
    list_views(views_of_root(), entries);
    co_return entries;
  }

  task<std::unique_ptr<inode>> find(std::string name) override {
    if (name == "layers")
      co_return make_layers_directory(mount_, root_);
    if (name == "bitmaps")
      co_return make_bitmaps_directory(mount_, root_);
    if (name == "nodes")
      co_return make_nodes_directory(mount_, root_);
    if (name == "partitions")
      co_return make_partitions_directory(mount_, root_,
                                          std::make_shared<root_file>(mount_, root_));
    if (name == points_name)
      co_return make_points_directory(mount_, root_);
    if (name == snapshots_name)
      co_return make_snapshots_directory(mount_, root_);
    const view* const v = find_view(views_of_root(), name);
    if (v == nullptr)
      co_await no_such_name(name);
    co_return std::make_unique<view_file>(
        *v, view_place{.mount = mount_, .root = root_.shared_from_this()});
  }
};

class service_directory final : public directory {
public:
  explicit service_directory(mount_state& mount) : mount_(mount) {}

  task<attributes> describe() override { co_return directory_attributes(mount_, nullptr); }
  task<std::vector<directory_entry>> list() override {
    std::vector<directory_entry> entries = {{std::string(jobs_name), S_IFDIR},
                                            {std::string(points_name), S_IFDIR},
                                            {std::string(snapshots_name), S_IFDIR}};
    list_views(views_of_mount(), entries);
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    if (name == jobs_name)
      co_return make_jobs_directory(mount_);
    if (name == points_name)
      co_return make_group_points_directory(mount_);
    if (name == snapshots_name)
      co_return make_group_snapshots_directory(mount_);
    const view* const v = find_view(views_of_mount(), name);
    if (v == nullptr)
      co_await no_such_name(name);
    co_return std::make_unique<view_file>(*v, view_place{.mount = mount_});
  }

private:
  mount_state& mount_;
};

class mount_directory final : public directory {
public:
  explicit mount_directory(mount_state& mount) : mount_(mount) {}

  task<attributes> describe() override {
    attributes a = directory_attributes(mount_, nullptr);
    a.link_count = static_cast<u32>(2 + mount_.roots.size());
    a.kernel_may_keep = true; // or every path would begin with asking for them
    co_return a;
  }

  task<std::vector<directory_entry>> list() override {
    std::vector<directory_entry> entries;
    for (const auto& root : mount_.roots) {
      entries.push_back({root->name(), S_IFREG});
      if (root->spec().control == control_mode::beside)
        entries.push_back({root->name() + std::string(control_suffix), S_IFDIR});
    }
    co_return entries;
  }

  task<std::unique_ptr<inode>> find(std::string name) override {
    if (name == service_name)
      co_return std::make_unique<service_directory>(mount_);
    if (exported_root* root = mount_.find_root(name))
      co_return std::make_unique<root_file>(mount_, *root);
    if (name.ends_with(control_suffix)) {
      const auto of = std::string_view(name).substr(0, name.size() - control_suffix.size());
      exported_root* const root = mount_.find_root(of);
      if (root != nullptr && root->spec().control != control_mode::none)
        co_return std::make_unique<control_directory>(mount_, *root);
    }
    co_await no_such_name(name);
    co_return nullptr;
  }

private:
  mount_state& mount_;
};

} // namespace

std::unique_ptr<inode> make_mount_directory(mount_state& mount) {
  return std::make_unique<mount_directory>(mount);
}
std::unique_ptr<inode> make_root_file(mount_state& mount, exported_root& root) {
  return std::make_unique<root_file>(mount, root);
}
std::unique_ptr<inode> make_control_directory(mount_state& mount, exported_root& root) {
  return std::make_unique<control_directory>(mount, root);
}
std::unique_ptr<inode> make_service_directory(mount_state& mount) {
  return std::make_unique<service_directory>(mount);
}

} // namespace bgfs
