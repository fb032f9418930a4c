// SPDX-License-Identifier: MIT
// NAME.d/partitions/: each partition of a disk as a file, links that find them by what the table
// says of them, and the table itself.
#include "fuse/tree/directory_common.h"
#include "graph/base/partitions/type_name.h"

#include <charconv>
#include <map>

namespace bgfs {
namespace {

using whole_pointer = std::shared_ptr<disk_file>; // shared by what is below the directory

class partition_file final : public disk_file {
public:
  partition_file(exported_root& root, whole_pointer whole, u32 number)
      : root_(root), owner_(root.shared_from_this()), whole_(std::move(whole)), number_(number) {}

  task<attributes> describe() override {
    const disk_use use = co_await whole_->disk(0);
    raw_disk* const found = use.disk;
    const partition_set::table_pointer table = co_await root_.parts.of(*found).read();
    const partition* const p = table->find(number_);
    if (p == nullptr || !p->has_bytes())
      co_await no_such_name(fmt::format("{}", number_));
    attributes a;
    a.mode = S_IFREG | (content() == shown_content::live ? root_.mode() : root_.view_mode(false));
    a.owner = root_.owner();
    a.group = root_.group();
    a.length = p->place.length;
    const byte_range place = p->place;
    const u64 allocated =
        co_await root_.place().run([&] { return found->allocated_within(place); });
    a.blocks = std::max<u64>(divide_up(allocated, 512), 1);
    if (content() == shown_content::frozen) {
      const attributes of_disk = co_await whole_->describe();
      a.modified = of_disk.modified;
      co_return a;
    }
    // A layer's content changes with the live image's.
    raw_disk* const live = root_.disk();
    a.modified = co_await root_.place().run([&] { return live->modified(); });
    co_return a;
  }

  task<disk_use> disk(u32 pid) override { return whole_->disk(pid); }
  u32 partition_number() const override { return number_; }
  exported_root* root_of() override { return &root_; }
  [[nodiscard]] shown_content content() const override { return whole_->content(); }
  [[nodiscard]] std::string identity() const override { return whole_->identity(); }

private:
  exported_root& root_;
  root_pointer owner_;
  whole_pointer whole_;
  u32 number_;
};

// A link directory: what of a partition its names are made of.
struct link_kind {
  std::string_view name;
  std::string_view (*key)(const partition& p);
};

std::string_view type_key(const partition& p) {
  const std::string_view name = partition_type_name(p.type);
  return name.empty() ? std::string_view(p.type) : name;
}

constexpr link_kind link_kinds[] = {
    {"by-label", [](const partition& p) -> std::string_view { return p.label; }},
    {"by-type", type_key},
    {"by-uuid", [](const partition& p) -> std::string_view { return p.uuid; }},
};

// The first of a name has it as it is, others are NAME%id=NUMBER, which no name is: a '%' of its
// own is "%25".
std::map<std::string, u32> links_of(const partition_table& table, const link_kind& kind) {
  std::map<std::string, u32> links;
  for (const partition& p : table.partitions) {
    const std::string_view key = kind.key(p);
    if (!p.has_bytes() || key.empty())
      continue;
    const std::string name = to_file_name(key);
    if (!links.emplace(name, p.number).second)
      links.emplace(fmt::format("{}%id={}", name, p.number), p.number);
  }
  return links;
}

class partitions_base : public root_directory {
public:
  partitions_base(mount_state& mount, exported_root& root, whole_pointer whole)
      : root_directory(mount, root), whole_(std::move(whole)) {}
  [[nodiscard]] std::string identity() const override { return whole_->identity(); }

protected:
  task<partition_set::table_pointer> table() {
    const disk_use use = co_await whole_->disk(0);
    raw_disk* const disk = use.disk;
    partition_set::table_pointer now = co_await root_.parts.of(*disk).read();
    co_return now;
  }
  whole_pointer whole_;
};

class link_directory final : public partitions_base {
public:
  link_directory(mount_state& mount, exported_root& root, whole_pointer whole,
                 const link_kind& kind)
      : partitions_base(mount, root, std::move(whole)), kind_(kind) {}

  task<std::vector<directory_entry>> list() override {
    const partition_set::table_pointer now = co_await table();
    std::vector<directory_entry> entries;
    for (const auto& [name, number] : links_of(*now, kind_))
      entries.push_back({name, S_IFLNK});
    co_return entries;
  }
  task<std::unique_ptr<inode>> find(std::string name) override {
    const partition_set::table_pointer now = co_await table();
    const auto links = links_of(*now, kind_);
    const auto at = links.find(name);
    if (at == links.end())
      co_await no_such_name(name);
    co_return make_link(fmt::format("../{}", at->second));
  }

private:
  const link_kind& kind_;
};

class partitions_directory final : public partitions_base {
public:
  using partitions_base::partitions_base;

  task<std::vector<directory_entry>> list() override {
    const partition_set::table_pointer now = co_await table();
    std::vector<directory_entry> entries;
    for (const partition& p : now->partitions)
      if (p.has_bytes())
        entries.push_back({fmt::format("{}", p.number), S_IFREG});
    for (const link_kind& kind : link_kinds)
      entries.push_back({std::string(kind.name), S_IFDIR});
    list_views(views_of_partitions(), entries);
    co_return entries;
  }

  task<std::unique_ptr<inode>> find(std::string name) override {
    for (const link_kind& kind : link_kinds)
      if (kind.name == name)
        co_return std::make_unique<link_directory>(mount_, root_, whole_, kind);
    if (const view* const v = find_view(views_of_partitions(), name))
      co_return std::make_unique<view_file>(
          *v, view_place{.mount = mount_, .root = root_.shared_from_this(), .whole = whole_});
    u32 number = 0;
    const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (bad != std::errc{} || fmt::format("{}", number) != name)
      co_await no_such_name(name);
    const partition_set::table_pointer now = co_await table();
    const partition* const p = now->find(number);
    if (p == nullptr || !p->has_bytes())
      co_await no_such_name(name);
    co_return std::make_unique<partition_file>(root_, whole_, number);
  }
};

} // namespace

std::unique_ptr<inode> make_partitions_directory(mount_state& mount, exported_root& root,
                                                 std::shared_ptr<disk_file> whole) {
  return std::make_unique<partitions_directory>(mount, root, std::move(whole));
}

} // namespace bgfs
