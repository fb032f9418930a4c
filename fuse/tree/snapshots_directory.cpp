// SPDX-License-Identifier: MIT
// NAME.d/snapshots/: a directory for each snapshot of a root, internal or external. mkdir creates
// one, rmdir deletes it, mv renames it.
#include "config/snapshot_text.h"
#include "fuse/tree/directory_common.h"
#include "fuse/tree/external_snapshots.h"

#include <cerrno>

namespace bgfs {
namespace {

constexpr std::string_view vmstate_name = "vmstate";

enum class snapshot_part : u8 { disk, vm_state };

error snapshot_gone(const exported_root& root) {
  return {error_kind::not_found, fmt::format("the snapshot of '{}' is gone", root.name())};
}

// One part of one snapshot. `key` tells which (snapshot_index.h), however it is named by now.
class snapshot_disk final : public shown_disk {
public:
  snapshot_disk(mount_state& mount, exported_root& root, std::string key, snapshot_part part)
      : mount_(mount), root_(root), owner_(root.shared_from_this()), key_(std::move(key)),
        part_(part) {}

  [[nodiscard]] exported_root& of() const override { return root_; }
  [[nodiscard]] std::string place() const override { return "snapshots/" + key_; }
  [[nodiscard]] std::string identity() const override { return key_; }
  [[nodiscard]] shown_content content() const override { return shown_content::frozen; }
  [[nodiscard]] map_scope scope() const override { return map_scope::chain; }

  // What it alone occupies nobody counts: at most what the image does, and what it is long.
  task<disk_extent> extent() override {
    const snapshot_info s = co_await look();
    disk_extent extent{.length = length_of(s), .modified = time_of(s)};
    const disk_extent live = co_await root_.place().run([this] { return root_.disk()->extent(); });
    extent.allocated =
        part_ == snapshot_part::vm_state ? extent.length : std::min(extent.length, live.allocated);
    co_return extent;
  }

  task<disk_use> open(u32 pid) override {
    const snapshot_info s = co_await look();
    side_disk_request request{
        .key = fmt::format("snapshots/{}/{}", key_, part_name()),
        .name = fmt::format("{}.d/snapshots/{}/{}", root_.name(), name_, part_name()),
        .driver = "internal-snapshot",
        .given = value::map(),
        .modified = time_of(s),
        .verify = [this](node& image) { return verify(image); }};
    if (has_external_snapshots(root_)) {
      request.configured = node_of_snapshot(mount_, root_, key_);
      disk_use external = co_await root_.beside().open(std::move(request), pid);
      co_return external;
    }
    request.given.set("snapshot-id", s.id);
    if (part_ == snapshot_part::vm_state)
      request.given.set("vm-state", true);
    disk_use use = co_await root_.beside().open(std::move(request), pid);
    co_return use;
  }

  task<value> info() override {
    const snapshot_info s = co_await look();
    const node* image = &root_.snapshots().image();
    if (has_external_snapshots(root_)) // null: it is on a branch that is not open
      image = co_await mount_.look_for_node(node_of_snapshot(mount_, root_, key_));
    const value listed = snapshots_value(std::span(&s, 1));
    value info = value::map();
    info.set("virtual-size", s.disk_length);
    if (image != nullptr) {
      info.set("filename", image->host_path());
      info.set("format", image->type().name);
    }
    info.set("snapshot", listed.as_list()->front());
    co_return info;
  }

private:
  [[nodiscard]] std::string_view part_name() const {
    return part_ == snapshot_part::disk ? "disk" : vmstate_name;
  }
  [[nodiscard]] u64 length_of(const snapshot_info& s) const {
    return part_ == snapshot_part::disk ? s.disk_length : s.vm_state_length;
  }
  task<snapshot_info> look() {
    const snapshot_index_pointer all = co_await root_.snapshots().index();
    const snapshot_info* const found = all->find_key(key_);
    if (found == nullptr)
      co_return fail(snapshot_gone(root_));
    name_ = all->name_of(*found);
    co_return *found;
  }
  // Its id may have become another's while it was opened. Now that it is open that cannot be.
  [[nodiscard]] result<> verify(node& image) const {
    BGFS_TRY(const auto all, image.owner().snapshots(image));
    if (std::ranges::none_of(all, [this](const snapshot_info& s) { return key_of(s) == key_; }))
      return fail(snapshot_gone(root_));
    return {};
  }

  mount_state& mount_;
  exported_root& root_;
  root_pointer owner_;
  std::string key_;
  snapshot_part part_;
  std::string name_; // when it was last looked at
};

// The raw file `vmstate`: a disk that is no disk, and has no views.
class vmstate_file final : public disk_file {
public:
  explicit vmstate_file(std::unique_ptr<snapshot_disk> shown) : shown_(std::move(shown)) {}
  task<attributes> describe() override {
    const disk_extent extent = co_await shown_->extent();
    const exported_root& root = shown_->of();
    attributes a;
    a.mode = S_IFREG | root.view_mode(false);
    a.owner = root.owner();
    a.group = root.group();
    a.length = extent.length;
    a.modified = extent.modified;
    a.blocks = extent.blocks();
    co_return a;
  }
  task<disk_use> disk(u32 pid) override { return shown_->open(pid); }
  exported_root* root_of() override { return &shown_->of(); }
  [[nodiscard]] std::string identity() const override { return shown_->identity(); }
  [[nodiscard]] shown_content content() const override { return shown_->content(); }

private:
  std::unique_ptr<snapshot_disk> shown_;
};

class snapshot_directory final : public root_directory {
public:
  snapshot_directory(mount_state& mount, exported_root& root, std::string key)
      : root_directory(mount, root), key_(std::move(key)) {}
  [[nodiscard]] std::string identity() const override { return key_; }

  task<attributes> describe() override {
    const snapshot_info s = co_await look();
    attributes a = directory_attributes(mount_, &root_);
    a.modified = time_of(s);
    co_return a;
  }
  task<std::vector<directory_entry>> list() override {
    (void)co_await look();
    std::vector<directory_entry> entries = list_shown_disk({});
    if (!has_external_snapshots(root_)) // an overlay keeps the disk alone
      entries.push_back({std::string(vmstate_name), S_IFREG});
    list_views(views_of_snapshot(), entries);
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    (void)co_await look();
    if (name == vmstate_name && !has_external_snapshots(root_))
      co_return std::make_unique<vmstate_file>(part(snapshot_part::vm_state));
    if (const view* const v = find_view(views_of_snapshot(), name))
      co_return std::make_unique<view_file>(
          *v, view_place{.mount = mount_, .root = root_.shared_from_this(), .snapshot = key_});
    auto found = find_in_shown_disk(mount_, part(snapshot_part::disk), {}, name);
    if (found == nullptr)
      co_await no_such_name(name);
    co_return found;
  }

  void opened_by(u32 pid) override { root_.snapshots().note_lister(key_, pid); }
  error refuse_unlink(const std::string& name, u32) override {
    return {error_kind::permission,
            fmt::format("'{}/{}' cannot be unlinked: a snapshot is deleted as a whole, with rmdir "
                        "of its directory",
                        path(), name)};
  }

private:
  task<snapshot_info> look() {
    const snapshot_index_pointer all = co_await root_.snapshots().index();
    const snapshot_info* const found = all->find_key(key_);
    if (found == nullptr)
      co_return fail(snapshot_gone(root_));
    co_return *found;
  }
  [[nodiscard]] std::unique_ptr<snapshot_disk> part(snapshot_part which) const {
    return std::make_unique<snapshot_disk>(mount_, root_, key_, which);
  }
  std::string key_;
};

class snapshots_directory final : public root_directory {
public:
  using root_directory::root_directory;

  task<attributes> describe() override { co_return changing_directory_attributes(mount_, root_); }
  task<std::vector<directory_entry>> list() override {
    const snapshot_index_pointer all = co_await root_.snapshots().index();
    std::vector<directory_entry> entries;
    for (const std::string& name : all->names())
      if (!name.empty())
        entries.push_back({name, S_IFDIR});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    const snapshot_index_pointer all = co_await root_.snapshots().index();
    const snapshot_info* const found = all->find(name);
    if (found == nullptr)
      co_await fail(no_such_snapshot(root_, name));
    co_return std::make_unique<snapshot_directory>(mount_, root_, key_of(*found));
  }
  [[nodiscard]] graph_change changes_graph() const override {
    return has_external_snapshots(root_) ? graph_change::by_itself : graph_change::none;
  }
  task<void> make(std::string name, u32) override {
    return root_.snapshots().create(std::move(name));
  }
  task<void> remove(std::string name, u32 pid) override {
    return root_.snapshots().remove(std::move(name), pid);
  }
  task<void> rename(std::string from, std::string to, u32) override {
    return root_.snapshots().rename(std::move(from), std::move(to));
  }
  error refuse_unlink(const std::string& name, u32) override {
    return {error_kind::permission,
            fmt::format("'{}/{}' is a snapshot; rmdir deletes it", path(), name)};
  }
};

} // namespace

std::unique_ptr<inode> make_snapshots_directory(mount_state& mount, exported_root& root) {
  return std::make_unique<snapshots_directory>(mount, root);
}

} // namespace bgfs
