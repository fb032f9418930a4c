// SPDX-License-Identifier: MIT
// NAME.d/nodes/: one directory for each node below the root, with links to its children.
#include "fuse/tree/directory_common.h"

namespace bgfs {
namespace {

bool is_kept(char c) {
  return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f && c != '/' && c != '%';
}

constexpr std::string_view debug_name = "debug";

bool has_debug(const node& n) {
  return n.is_open() && n.as_debuggable() != nullptr;
}

// nodes/NAME/debug, of a node that injects faults.
class debug_directory final : public root_directory {
public:
  debug_directory(mount_state& mount, exported_root& root, std::string node_name)
      : root_directory(mount, root), node_name_(std::move(node_name)) {}

  task<std::vector<directory_entry>> list() override {
    std::vector<directory_entry> entries;
    list_views(views_of_debug(), entries);
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    const view* const v = find_view(views_of_debug(), name);
    if (v == nullptr)
      co_await no_such_name(name);
    co_return std::make_unique<view_file>(
        *v, view_place{.mount = mount_, .root = root_.shared_from_this(), .node_name = node_name_});
  }

private:
  std::string node_name_;
};

class node_directory final : public root_directory {
public:
  node_directory(mount_state& mount, exported_root& root, std::string node_name)
      : root_directory(mount, root), node_name_(std::move(node_name)) {}

  task<std::vector<directory_entry>> list() override {
    const view_subject about = co_await place().subject(0);
    std::vector<directory_entry> entries;
    list_views(views_of_node(), entries);
    if (has_debug(*about.target))
      entries.push_back({std::string(debug_name), S_IFDIR});
    for (const auto& e : about.target->children())
      entries.push_back({to_file_name(e->name()), S_IFLNK});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    const view_subject about = co_await place().subject(0);
    if (const view* v = find_view(views_of_node(), name))
      co_return std::make_unique<view_file>(*v, place());
    if (name == debug_name && has_debug(*about.target))
      co_return std::make_unique<debug_directory>(mount_, root_, node_name_);
    for (const auto& e : about.target->children())
      if (to_file_name(e->name()) == name)
        co_return make_link("../" + to_file_name(e->child().name()));
    co_await no_such_name(name);
    co_return nullptr;
  }

private:
  [[nodiscard]] view_place place() const {
    return {.mount = mount_, .root = root_.shared_from_this(), .node_name = node_name_};
  }
  std::string node_name_;
};

class nodes_directory final : public root_directory {
public:
  using root_directory::root_directory;

  task<std::vector<directory_entry>> list() override {
    co_await root_.open(0);
    std::vector<directory_entry> entries;
    for (const node* n : root_.nodes())
      entries.push_back({to_file_name(n->name()), S_IFDIR});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    co_await root_.open(0);
    for (const node* n : root_.nodes())
      if (to_file_name(n->name()) == name)
        co_return std::make_unique<node_directory>(mount_, root_, n->name());
    co_await no_such_name(name);
    co_return nullptr;
  }
};

} // namespace

std::string to_file_name(std::string_view node_name) {
  std::string out;
  for (const char c : node_name) {
    if (is_kept(c)) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  if (out == "." || out == "..")
    out.replace(0, 1, "%2E");
  return out;
}

std::unique_ptr<inode> make_nodes_directory(mount_state& mount, exported_root& root) {
  return std::make_unique<nodes_directory>(mount, root);
}

} // namespace bgfs
