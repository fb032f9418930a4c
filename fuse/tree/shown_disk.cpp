// SPDX-License-Identifier: MIT
#include "fuse/tree/shown_disk.h"

#include "fuse/tree/directory_common.h"

namespace bgfs {
namespace {

constexpr std::string_view disk_name = "disk";
constexpr std::string_view partitions_name = "partitions";

class shown_file final : public disk_file {
public:
  explicit shown_file(shown_pointer shown)
      : shown_(std::move(shown)), owner_(shown_->of().shared_from_this()) {}

  task<attributes> describe() override {
    const exported_root& root = shown_->of();
    const disk_extent extent = co_await shown_->extent();
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
  shown_pointer shown_;
  root_pointer owner_;
};

} // namespace

std::shared_ptr<disk_file> make_shown_file(shown_pointer shown) {
  return std::make_shared<shown_file>(std::move(shown));
}

std::vector<directory_entry> list_shown_disk(std::span<const view* const> more) {
  std::vector<directory_entry> entries = {{std::string(disk_name), S_IFREG},
                                          {std::string(partitions_name), S_IFDIR}};
  list_views(views_of_shown_disk(), entries);
  list_views(more, entries);
  return entries;
}

std::unique_ptr<inode> find_in_shown_disk(mount_state& mount, shown_pointer shown,
                                          std::span<const view* const> more,
                                          std::string_view name) {
  if (name == disk_name)
    return std::make_unique<shown_file>(std::move(shown));
  if (name == partitions_name) {
    exported_root& root = shown->of();
    return make_partitions_directory(mount, root, make_shown_file(std::move(shown)));
  }
  const view* v = find_view(views_of_shown_disk(), name);
  if (v == nullptr)
    v = find_view(more, name);
  if (v == nullptr)
    return nullptr;
  root_pointer root = shown->of().shared_from_this();
  return std::make_unique<view_file>(
      *v, view_place{.mount = mount, .root = std::move(root), .shown = std::move(shown)});
}

} // namespace bgfs
