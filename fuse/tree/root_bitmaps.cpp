// SPDX-License-Identifier: MIT
#include "fuse/tree/root_bitmaps.h"

#include "fuse/tree/deliberate.h"
#include "fuse/tree/inode_table.h"
#include "fuse/tree/mount_state.h"
#include "fuse/tree/process.h"

#include <cerrno>

namespace bgfs {

// Names are there once; should two be shown alike, a number made from the name tells them apart.
bitmap_index::bitmap_index(std::vector<std::string> names) : names_(std::move(names)) {
  std::vector<std::string> ids;
  std::vector<named_item> items;
  ids.reserve(names_.size());
  for (const std::string& name : names_) {
    ids.push_back(fmt::format("{:016x}", inode_table::hash_of_path(name)));
    items.push_back({name, ids.back()});
  }
  shown_ = shown_names(items);
}

const std::string* bitmap_index::find(std::string_view shown_name) const {
  const i64 at = shown_.find(shown_name);
  return at < 0 ? nullptr : &names_[static_cast<std::size_t>(at)];
}

node& root_bitmaps::image() const {
  return *root_.disk()->top().skip_filters();
}

namespace {

struct bitmap_names {
  std::optional<std::vector<std::string>> all; // nullopt: as they were known
  u64 version = 0;
};

bitmap_names look_at(const node& image, std::optional<u64> known_version) {
  bitmap_names found{.version = image.bitmaps().version()};
  if (known_version == found.version)
    return found;
  found.all.emplace();
  for (const auto& b : image.bitmaps().all())
    found.all->push_back(b->name());
  return found;
}

} // namespace

task<bitmap_index_pointer> root_bitmaps::index() {
  co_await root_.open(0);
  const node& of = image();
  const u64 shape = mount_.shape;
  const bool is_known = cached_ != nullptr && cached_of_ == &of && cached_shape_ == shape;
  const std::optional<u64> version = is_known ? std::optional(cached_version_) : std::nullopt;
  bitmap_names found = co_await root_.place().look([&] { return look_at(of, version); });
  if (!found.all && cached_ != nullptr && cached_version_ == found.version)
    co_return cached_;
  if (!found.all) // another look has replaced it meanwhile
    co_return co_await index();
  cached_ = std::make_shared<const bitmap_index>(*std::move(found.all));
  cached_of_ = &of;
  cached_version_ = found.version;
  cached_shape_ = shape;
  co_return cached_;
}

task<std::string> root_bitmaps::name_of(std::string shown_name) {
  const bitmap_index_pointer all = co_await index();
  const std::string* const found = all->find(shown_name);
  if (found == nullptr)
    co_return fail(error_kind::not_found, "'{}' has no bitmap '{}'; {}.d/bitmaps/ lists them",
                   root_.name(), shown_name, root_.name());
  co_return *found;
}

result<> root_bitmaps::require_changeable() const {
  BGFS_CHECK(root_.require_medium());
  if (root_.is_writable())
    return {};
  return fail(error{
      error_kind::permission,
      fmt::format("'{}' is exported read-only, its bitmaps too; set 'writable: true' in its export",
                  root_.name()),
      EROFS});
}

std::string root_bitmaps::why_in_memory(const node& image) {
  if (image.as_bitmap_store() == nullptr)
    return fmt::format("driver '{}' keeps no bitmaps in its images", image.type().name);
  for (const auto& b : image.bitmaps().all())
    if (b->is_persistent())
      return {}; // so it can; whether one more, is said when it is added
  const bitmap_definition any{.name = "b", .granularity = bitmap_granularity_min};
  const result<> possible = image.as_bitmap_store()->check_can_store(std::span(&any, 1));
  return possible ? std::string() : possible.error().message();
}

task<void> root_bitmaps::change(std::vector<bitmap_change> changes) {
  co_await require_changeable();
  for (bitmap_change& c : changes)
    c.where = &image();
  node& of = image();
  co_await root_.place().run([&] { return of.owner().change_bitmaps(changes); });
}

task<void> root_bitmaps::add(std::string name) {
  const bitmap_index_pointer known = co_await index();
  if (known->find(name) != nullptr)
    co_await fail(error{
        error_kind::invalid_argument,
        fmt::format("'{}' has a bitmap '{}' already; take another name, or remove it with rmdir",
                    root_.name(), name),
        EEXIST});
  const node& of = image();
  const bool is_persistent = co_await root_.place().look([&] { return why_in_memory(of).empty(); });
  std::vector<bitmap_change> changes;
  changes.push_back(
      {.what = bitmap_change::kind::add, .name = std::move(name), .is_persistent = is_persistent});
  co_await change(std::move(changes));
}

std::string root_bitmaps::directory_of(const std::string& name) const {
  return fmt::format("{}.d/bitmaps/{}", root_.name(), name);
}

void root_bitmaps::note_lister(const std::string& name, u32 pid) const {
  mount_.listers.note(process_of(pid), directory_of(name));
}

task<void> root_bitmaps::remove(std::string shown_name, u32 pid) {
  const std::string name = co_await name_of(std::move(shown_name));
  co_await require_changeable();
  co_await require_no_lister(mount_, pid, directory_of(name),
                             fmt::format("bitmap '{}' of '{}'", name, root_.name()));
  if (const opener* const user = root_.beside().user_of("bitmaps/" + escape_name(name) + "/"))
    co_await fail(error_kind::busy,
                  "what bitmap '{}' of '{}' marks is open in process {} ({}); "
                  "close it there",
                  name, root_.name(), user->pid, user->command.empty() ? "?" : user->command);
  co_await root_.beside().close_unused();
  std::vector<bitmap_change> changes;
  changes.push_back({.what = bitmap_change::kind::remove, .name = name});
  co_await change(std::move(changes));
}

// --- on the loop of the nodes ------------------------------------------------------------------

result<dirty_bitmap*> root_bitmaps::find(std::string_view name) const {
  dirty_bitmap* const found = image().bitmaps().find(name);
  if (found == nullptr)
    return fail(error_kind::not_found, "'{}' has no bitmap '{}' any more", root_.name(), name);
  return found;
}

result<> root_bitmaps::hold(const std::string& name) {
  BGFS_TRY(dirty_bitmap* const which, find(name));
  if (!is_held(name))
    held_.emplace(name,
                  std::make_unique<bitmap_hold>(image(), *which,
                                                fmt::format("its 'hold' file, {}.d/bitmaps/{}/hold",
                                                            root_.name(), escape_name(name))));
  return {};
}

} // namespace bgfs
