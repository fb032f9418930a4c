// SPDX-License-Identifier: MIT
// NAME.d/layers/: N for each step down the backing chain, and by-node, which finds them by name.
#include "fuse/tree/directory_common.h"

#include <charconv>

namespace bgfs {
namespace {

constexpr std::string_view disk_name = "disk";
constexpr std::string_view by_node_name = "by-node";

class layer_file final : public disk_file {
public:
  layer_file(exported_root& root, unsigned index)
      : root_(root), owner_(root.shared_from_this()), index_(index) {}

  task<attributes> describe() override {
    attributes a;
    a.mode = S_IFREG | root_.view_mode(false);
    a.owner = root_.owner();
    a.group = root_.group();
    raw_disk* const found = co_await root_.layer_disk(index_);
    const disk_extent extent = co_await root_.place().run([&] { return found->extent(); });
    a.length = extent.length;
    a.modified = extent.modified;
    if (index_ == 0) { // the live image changes, and its view with it
      raw_disk* const live = root_.disk();
      a.modified = co_await root_.place().run([&] { return live->modified(); });
    }
    a.blocks = extent.blocks();
    co_return a;
  }

  task<raw_disk*> disk(u32) override {
    raw_disk* const found = co_await root_.layer_disk(index_);
    co_return found;
  }
  exported_root* root_of() override { return &root_; }
  bool is_live() const override { return false; }

private:
  exported_root& root_;
  root_pointer owner_;
  unsigned index_;
};

class layer_directory final : public root_directory {
public:
  layer_directory(mount_state& mount, exported_root& root, unsigned index)
      : root_directory(mount, root), index_(index) {}

  task<std::vector<directory_entry>> list() override {
    std::vector<directory_entry> entries = {{std::string(disk_name), S_IFREG},
                                            {"partitions", S_IFDIR}};
    list_views(views_of_layer(), entries);
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    if (name == disk_name)
      co_return std::make_unique<layer_file>(root_, index_);
    if (name == "partitions")
      co_return make_partitions_directory(mount_, root_,
                                          std::make_shared<layer_file>(root_, index_));
    const view* const v = find_view(views_of_layer(), name);
    if (v == nullptr)
      co_await no_such_name(name);
    co_return std::make_unique<view_file>(*v,
                                          view_place{mount_, root_.shared_from_this(), index_, {}});
  }

private:
  unsigned index_;
};

class by_node_directory final : public root_directory {
public:
  using root_directory::root_directory;

  task<std::vector<directory_entry>> list() override {
    std::vector<directory_entry> entries;
    for (const node* n : root_.layers())
      entries.push_back({to_file_name(n->name()), S_IFLNK});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    const auto chain = root_.layers();
    for (std::size_t i = 0; i < chain.size(); i++)
      if (to_file_name(chain[i]->name()) == name)
        co_return make_link(fmt::format("../{}", i));
    co_await no_such_name(name);
    co_return nullptr;
  }
};

class layers_directory final : public root_directory {
public:
  using root_directory::root_directory;

  task<std::vector<directory_entry>> list() override {
    co_await root_.open(0);
    std::vector<directory_entry> entries = {{std::string(by_node_name), S_IFDIR}};
    for (std::size_t i = 0; i < root_.layers().size(); i++)
      entries.push_back({fmt::format("{}", i), S_IFDIR});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    co_await root_.open(0);
    if (name == by_node_name)
      co_return std::make_unique<by_node_directory>(mount_, root_);
    unsigned index = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool is_index = bad == std::errc{} && fmt::format("{}", index) == name;
    if (!is_index || index >= root_.layers().size())
      co_await no_such_name(name);
    co_return std::make_unique<layer_directory>(mount_, root_, index);
  }
};

} // namespace

std::unique_ptr<inode> make_layers_directory(mount_state& mount, exported_root& root) {
  return std::make_unique<layers_directory>(mount, root);
}

} // namespace bgfs
