// SPDX-License-Identifier: MIT
// NAME.d/points/: a directory for each point. mkdir freezes the root as it is now, rmdir lets the
// instant go. .bgfs/points/: the same for all writable roots.
#include "fuse/tree/directory_common.h"
#include "fuse/tree/group_snapshots.h"
#include "fuse/tree/process.h"

#include <cerrno>

namespace bgfs {
namespace {

constexpr std::string_view since_name = "since";
constexpr std::string_view image_suffix = ".qcow2";

class point_disk final : public shown_disk {
public:
  point_disk(exported_root& root, point_pointer of)
      : root_(root), owner_(root.shared_from_this()), point_(std::move(of)) {}

  [[nodiscard]] exported_root& of() const override { return root_; }
  [[nodiscard]] std::string place() const override { return "points/" + point_->name; }
  [[nodiscard]] std::string identity() const override {
    return fmt::format("{}.{}", point_->made.tv_sec, point_->made.tv_nsec);
  }
  [[nodiscard]] shown_content content() const override { return shown_content::frozen; }
  [[nodiscard]] map_scope scope() const override { return map_scope::chain; }
  task<disk_extent> extent() override {
    raw_disk& disk = *point_->files.front().disk;
    co_await disk.require_attached();
    disk_extent extent = co_await root_.place().run([&disk] { return disk.extent(); });
    const disk_extent live = co_await root_.place().run([this] { return root_.disk()->extent(); });
    extent.allocated = std::min(extent.length, live.allocated);
    extent.modified = point_->made;
    co_return extent;
  }
  task<disk_use> open(u32 pid) override { return root_.points().open(point_, {}, pid); }
  task<value> info() override {
    const disk_extent extent = co_await this->extent();
    const point_state s = co_await root_.points().state(point_);
    value about = value::map();
    about.set("name", point_->name);
    about.set("date-sec", static_cast<i64>(point_->made.tv_sec));
    about.set("date-nsec", static_cast<i64>(point_->made.tv_nsec));
    about.set("kept-bytes", s.kept);
    if (s.limit)
      about.set("limit", *s.limit);
    if (!s.broken.empty())
      about.set("broken", s.broken);
    node& image = root_.bitmaps().image();
    value info = value::map();
    info.set("virtual-size", extent.length);
    info.set("filename", image.host_path());
    info.set("format", image.type().name);
    info.set("point", std::move(about));
    co_return info;
  }

private:
  exported_root& root_;
  root_pointer owner_;
  point_pointer point_;
};

// since/BITMAP.qcow2.
class increment_file final : public disk_file {
public:
  increment_file(exported_root& root, point_pointer of, std::string bitmap)
      : root_(root), owner_(root.shared_from_this()), point_(std::move(of)),
        bitmap_(std::move(bitmap)) {}

  task<attributes> describe() override {
    raw_disk& disk = *point_->find(bitmap_)->disk;
    co_await disk.require_attached();
    attributes a;
    a.mode = S_IFREG | root_.view_mode(false);
    a.owner = root_.owner();
    a.group = root_.group();
    a.length = co_await root_.place().look([&disk] { return disk.length(); });
    a.modified = point_->made;
    a.blocks = divide_up(a.length, 512); // it has no holes but zeroes at its end
    co_return a;
  }
  task<disk_use> disk(u32 pid) override { return root_.points().open(point_, bitmap_, pid); }
  exported_root* root_of() override { return &root_; }
  [[nodiscard]] std::string identity() const override {
    return fmt::format("{}.{}", point_->made.tv_sec, point_->made.tv_nsec);
  }
  [[nodiscard]] shown_content content() const override { return shown_content::frozen; }

private:
  exported_root& root_;
  root_pointer owner_;
  point_pointer point_;
  std::string bitmap_;
};

class since_directory final : public root_directory {
public:
  since_directory(mount_state& mount, exported_root& root, point_pointer of)
      : root_directory(mount, root), point_(std::move(of)) {}

  task<std::vector<directory_entry>> list() override {
    std::vector<directory_entry> entries;
    for (const point_file& f : point_->files)
      if (!f.bitmap.empty())
        entries.push_back({escape_name(f.bitmap) + std::string(image_suffix), S_IFREG});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    for (const point_file& f : point_->files)
      if (!f.bitmap.empty() && escape_name(f.bitmap) + std::string(image_suffix) == name)
        co_return std::make_unique<increment_file>(root_, point_, f.bitmap);
    co_await fail(error_kind::not_found,
                  "point '{}' of '{}' has no increment '{}': it has one for each bitmap that was "
                  "there, and could be trusted, when it was made",
                  point_->name, root_.name(), name);
    co_return nullptr;
  }
  void opened_by(u32 pid) override { root_.points().note_lister(point_->name, pid); }

private:
  point_pointer point_;
};

class point_directory final : public root_directory {
public:
  point_directory(mount_state& mount, exported_root& root, point_pointer of)
      : root_directory(mount, root), point_(std::move(of)) {}

  task<attributes> describe() override {
    co_await require();
    attributes a = directory_attributes(mount_, &root_);
    a.modified = point_->made;
    co_return a;
  }
  task<std::vector<directory_entry>> list() override {
    co_await require();
    std::vector<directory_entry> entries = list_shown_disk(views_of_point());
    entries.push_back({std::string(since_name), S_IFDIR});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    co_await require();
    if (name == since_name)
      co_return std::make_unique<since_directory>(mount_, root_, point_);
    if (const view* const v = find_view(views_of_point(), name))
      co_return std::make_unique<view_file>(
          *v, view_place{.mount = mount_, .root = root_.shared_from_this(), .point = point_->name});
    auto found = find_in_shown_disk(mount_, std::make_shared<point_disk>(root_, point_), {}, name);
    if (found == nullptr)
      co_await no_such_name(name);
    co_return found;
  }
  void opened_by(u32 pid) override { root_.points().note_lister(point_->name, pid); }
  error refuse_unlink(const std::string& name, u32) override {
    return {error_kind::permission,
            fmt::format("'{}/{}' cannot be unlinked: a point ends as a whole, with rmdir of its "
                        "directory",
                        path(), name)};
  }

private:
  task<void> require() {
    const point_pointer now = co_await root_.points().find(point_->name);
    if (now != point_)
      co_await no_such_name(point_->name);
  }
  point_pointer point_;
};

class points_directory final : public root_directory {
public:
  using root_directory::root_directory;

  task<attributes> describe() override { co_return changing_directory_attributes(mount_, root_); }
  task<std::vector<directory_entry>> list() override {
    std::vector<directory_entry> entries;
    for (const point_pointer& p : root_.points().all())
      entries.push_back({escape_name(p->name), S_IFDIR});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    point_pointer found = co_await root_.points().find(name);
    co_return std::make_unique<point_directory>(mount_, root_, std::move(found));
  }
  [[nodiscard]] graph_change changes_graph() const override { return graph_change::alone; }
  task<void> make(std::string name, u32) override {
    return create_points(mount_, {root_.shared_from_this()}, std::move(name));
  }
  task<void> remove(std::string name, u32 pid) override {
    return end_points(mount_, {root_.shared_from_this()}, std::move(name), pid);
  }
  error refuse_unlink(const std::string& name, u32) override {
    return {error_kind::permission, fmt::format("'{}/{}' is a point; rmdir ends it", path(), name)};
  }
};

// --- of all roots ------------------------------------------------------------------------------

std::vector<root_pointer> roots_with(const mount_state& mount, std::string_view name) {
  std::vector<root_pointer> found;
  for (const root_pointer& r : mount.roots)
    if (r->points().find(name))
      found.push_back(r);
  return found;
}

class group_point_directory final : public directory {
public:
  group_point_directory(mount_state& mount, std::string name)
      : mount_(mount), name_(std::move(name)) {}

  task<attributes> describe() override { co_return directory_attributes(mount_, nullptr); }
  task<std::vector<directory_entry>> list() override {
    std::vector<directory_entry> entries;
    for (const root_pointer& r : roots_with(mount_, name_))
      entries.push_back({r->name(), S_IFLNK});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string root_name) override {
    for (const root_pointer& r : roots_with(mount_, name_))
      if (r->name() == root_name)
        co_return std::make_unique<link>(fmt::format("../../../{}.d/points/{}", root_name, name_),
                                         mount_.owner, mount_.group, mount_.started);
    co_await no_such_name(root_name);
    co_return nullptr;
  }
  void opened_by(u32 pid) override {
    for (const root_pointer& r : roots_with(mount_, name_))
      r->points().note_lister(name_, pid);
  }

private:
  mount_state& mount_;
  std::string name_;
};

class group_points_directory final : public directory {
public:
  explicit group_points_directory(mount_state& mount) : mount_(mount) {}

  task<attributes> describe() override {
    attributes a = directory_attributes(mount_, nullptr);
    a.mode |= 0200;
    a.link_count = 1;
    co_return a;
  }
  task<std::vector<directory_entry>> list() override {
    std::vector<directory_entry> entries;
    for (const root_pointer& r : mount_.roots)
      for (const point_pointer& p : r->points().all())
        if (std::ranges::find(entries, escape_name(p->name), &directory_entry::name) ==
            entries.end())
          entries.push_back({escape_name(p->name), S_IFDIR});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    if (roots_with(mount_, name).empty())
      co_await no_such_name(name);
    co_return std::make_unique<group_point_directory>(mount_, std::move(name));
  }
  [[nodiscard]] graph_change changes_graph() const override { return graph_change::alone; }
  task<void> make(std::string name, u32 pid) override {
    std::vector<root_pointer> roots = co_await open_group(mount_, pid);
    if (roots.empty())
      co_await fail(error_kind::not_found,
                    "no root is writable, so that there is nothing to make a point of");
    co_await create_points(mount_, std::move(roots), std::move(name));
  }
  task<void> remove(std::string name, u32 pid) override {
    std::vector<root_pointer> roots = roots_with(mount_, name);
    if (roots.empty())
      co_await no_such_name(name);
    co_await end_points(mount_, std::move(roots), std::move(name), pid);
  }
  error refuse_unlink(const std::string& name, u32) override {
    return {error_kind::permission,
            fmt::format("'{}/{}' is a point of all roots; rmdir ends it", path(), name)};
  }

private:
  mount_state& mount_;
};

} // namespace

std::unique_ptr<inode> make_points_directory(mount_state& mount, exported_root& root) {
  return std::make_unique<points_directory>(mount, root);
}

std::unique_ptr<inode> make_group_points_directory(mount_state& mount) {
  return std::make_unique<group_points_directory>(mount);
}

} // namespace bgfs
