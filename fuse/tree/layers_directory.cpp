// SPDX-License-Identifier: MIT
// NAME.d/layers/: N for each step down the backing chain, and by-node, which finds them by name.
#include "config/render_info.h"
#include "fuse/tree/directory_common.h"

#include <charconv>

namespace bgfs {
namespace {

constexpr std::string_view by_node_name = "by-node";

class layer final : public shown_disk {
public:
  layer(exported_root& root, unsigned index)
      : root_(root), owner_(root.shared_from_this()), index_(index) {}

  [[nodiscard]] exported_root& of() const override { return root_; }
  [[nodiscard]] std::string place() const override { return fmt::format("layers/{}", index_); }
  [[nodiscard]] std::string identity() const override { return {}; } // whatever is there now
  [[nodiscard]] shown_content content() const override {
    return index_ == 0 ? shown_content::as_live : shown_content::below;
  }
  task<disk_extent> extent() override {
    raw_disk* const found = co_await root_.layer_disk(index_);
    disk_extent extent = co_await root_.place().run([&] { return found->extent(); });
    if (index_ == 0) { // the live image changes, and its view with it
      raw_disk* const live = root_.disk();
      extent.modified = co_await root_.place().run([&] { return live->modified(); });
    }
    co_return extent;
  }
  task<disk_use> open(u32) override {
    raw_disk* const found = co_await root_.layer_disk(index_);
    co_return disk_use{found};
  }
  [[nodiscard]] map_scope scope() const override { return map_scope::one_layer; }
  task<value> info() override {
    const auto chain = root_.layers();
    if (index_ >= chain.size())
      co_return fail(error_kind::not_found, "'{}' has no layer {}", root_.name(), index_);
    value found = co_await root_.place().run([&] { return read_info(*chain[index_]); });
    co_return found;
  }

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
    co_return list_shown_disk(views_of_layer());
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    // The host path is of the node that is the layer now.
    if (const view* const v = find_view(views_of_layer(), name))
      co_return std::make_unique<view_file>(
          *v, view_place{.mount = mount_, .root = root_.shared_from_this(), .layer = index_});
    auto found = find_in_shown_disk(mount_, std::make_shared<layer>(root_, index_), {}, name);
    if (found == nullptr)
      co_await no_such_name(name);
    co_return found;
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
