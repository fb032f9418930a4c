// SPDX-License-Identifier: MIT
// NAME.d/bitmaps/: a directory for each dirty bitmap of the image. mkdir adds one, rmdir removes
// it.
#include "fuse/tree/directory_common.h"

#include <cerrno>

namespace bgfs {
namespace {

constexpr std::string_view dirty_name = "dirty";

// The raw file `dirty`: as long as the disk, the live data where the bitmap is dirty.
class dirty_file final : public disk_file {
public:
  dirty_file(exported_root& root, std::string name)
      : root_(root), owner_(root.shared_from_this()), name_(std::move(name)) {}

  task<attributes> describe() override {
    const disk_extent live = co_await root_.place().run([this] { return root_.disk()->extent(); });
    const u64 length =
        co_await root_.place().look([this] { return root_.bitmaps().image().length(); });
    attributes a;
    a.mode = S_IFREG | root_.view_mode(false);
    a.owner = root_.owner();
    a.group = root_.group();
    a.length = length;
    a.modified = live.modified;
    a.blocks = live.blocks();
    co_return a;
  }
  task<disk_use> disk(u32 pid) override {
    side_disk_request request{
        .key = fmt::format("bitmaps/{}/{}", escape_name(name_), dirty_name),
        .name = fmt::format("{}.d/bitmaps/{}/{}", root_.name(), escape_name(name_), dirty_name),
        .driver = "bitmap-view",
        .given = value::map(),
        .modified = mount_time(),
        .before = [this](node& image) { return read_bits(image, name_); }};
    request.given.set("bitmap", name_);
    disk_use use = co_await root_.beside().open(std::move(request), pid);
    co_return use;
  }
  exported_root* root_of() override { return &root_; }
  [[nodiscard]] std::string identity() const override { return name_; }
  [[nodiscard]] shown_content content() const override { return shown_content::as_live; }

private:
  static task<void> read_bits(node& image, std::string name) {
    (void)co_await image.owner().read_bitmap(image, std::move(name));
  }
  [[nodiscard]] std::timespec mount_time() const {
    std::timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    return now;
  }
  exported_root& root_;
  root_pointer owner_;
  std::string name_;
};

class bitmap_directory final : public root_directory {
public:
  bitmap_directory(mount_state& mount, exported_root& root, std::string name)
      : root_directory(mount, root), name_(std::move(name)) {}
  [[nodiscard]] std::string identity() const override { return name_; }

  task<attributes> describe() override {
    co_await require();
    co_return directory_attributes(mount_, &root_);
  }
  task<std::vector<directory_entry>> list() override {
    co_await require();
    std::vector<directory_entry> entries;
    list_views(views_of_bitmap(), entries);
    entries.push_back({std::string(dirty_name), S_IFREG});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    co_await require();
    if (name == dirty_name)
      co_return std::make_unique<dirty_file>(root_, name_);
    const view* const v = find_view(views_of_bitmap(), name);
    if (v == nullptr)
      co_await no_such_name(name);
    co_return std::make_unique<view_file>(
        *v, view_place{.mount = mount_, .root = root_.shared_from_this(), .bitmap = name_});
  }
  void opened_by(u32 pid) override { root_.bitmaps().note_lister(name_, pid); }
  error refuse_unlink(const std::string& name, u32) override {
    return {error_kind::permission,
            fmt::format("'{}/{}' cannot be unlinked: a bitmap is removed as a whole, with rmdir of "
                        "its directory",
                        path(), name)};
  }

private:
  task<void> require() {
    co_await root_.require_medium();
    const result<dirty_bitmap*> found =
        co_await root_.place().look([this] { return root_.bitmaps().find(name_); });
    if (!found)
      co_await fail(found.error());
  }
  std::string name_;
};

class bitmaps_directory final : public root_directory {
public:
  using root_directory::root_directory;

  task<attributes> describe() override { co_return changing_directory_attributes(mount_, root_); }
  task<std::vector<directory_entry>> list() override {
    const bitmap_index_pointer all = co_await root_.bitmaps().index();
    std::vector<directory_entry> entries;
    for (const std::string& name : all->shown())
      if (!name.empty())
        entries.push_back({name, S_IFDIR});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string shown_name) override {
    std::string name = co_await root_.bitmaps().name_of(std::move(shown_name));
    co_return std::make_unique<bitmap_directory>(mount_, root_, std::move(name));
  }
  task<void> make(std::string name, u32) override { return root_.bitmaps().add(std::move(name)); }
  task<void> remove(std::string name, u32 pid) override {
    return root_.bitmaps().remove(std::move(name), pid);
  }
  task<void> rename(std::string from, std::string to, u32) override {
    co_await fail(error_kind::permission,
                  "bitmap '{}' cannot be renamed: add '{}' with mkdir, write '{}' to its 'merge', "
                  "and remove the other; what is written meanwhile is in both",
                  from, to, from);
  }
  error refuse_unlink(const std::string& name, u32) override {
    return {error_kind::permission,
            fmt::format("'{}/{}' is a bitmap; rmdir removes it", path(), name)};
  }
};

} // namespace

std::unique_ptr<inode> make_bitmaps_directory(mount_state& mount, exported_root& root) {
  return std::make_unique<bitmaps_directory>(mount, root);
}

} // namespace bgfs
