// SPDX-License-Identifier: MIT
#include "fuse/tree/root_snapshots.h"

#include "fuse/tree/deliberate.h"
#include "fuse/tree/external_snapshots.h"
#include "fuse/tree/mount_state.h"
#include "fuse/tree/process.h"
#include "graph/io/spawn.h"

#include <algorithm>
#include <cerrno>

namespace bgfs {

new_snapshot named_now(std::string name) {
  std::timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return {.name = std::move(name),
          .date_seconds = static_cast<u32>(now.tv_sec),
          .date_nanoseconds = static_cast<u32>(now.tv_nsec)};
}

error no_such_snapshot(const exported_root& root, std::string_view shown_name) {
  return {error_kind::not_found,
          fmt::format("'{}' has no snapshot '{}'; {}.d/snapshots/ lists them", root.name(),
                      shown_name, root.name())};
}

error snapshot_exists(const exported_root& root, std::string_view shown_name) {
  return {
      error_kind::invalid_argument,
      fmt::format("'{}' has a snapshot '{}' already; take another name, or delete it with rmdir",
                  root.name(), shown_name),
      EEXIST};
}

node& root_snapshots::image() const {
  return *root_.disk()->top().skip_filters();
}

namespace {

struct snapshot_list {
  std::optional<std::vector<snapshot_info>> all; // nullopt: as they were known
  u64 version = 0;
};

// On the loop of the image.
result<snapshot_list> look_at(node& image, std::optional<u64> known_version) {
  snapshot_list found{.version = image.snapshots_version()};
  if (image.as_snapshottable() == nullptr) {
    found.all.emplace();
    return found;
  }
  BGFS_TRY(auto all, known_version == found.version ? result<std::vector<snapshot_info>>()
                                                    : image.owner().snapshots(image));
  if (known_version != found.version)
    found.all = std::move(all);
  return found;
}

} // namespace

task<snapshot_index_pointer> root_snapshots::index() {
  co_await root_.open(0);
  if (has_external_snapshots(root_))
    co_return std::make_shared<const snapshot_index>(external_index(mount_, root_));
  node& of = image();
  const u64 shape = mount_.shape;
  const bool is_known = cached_ != nullptr && cached_of_ == &of && cached_shape_ == shape;
  const std::optional<u64> version = is_known ? std::optional(cached_version_) : std::nullopt;
  const result<snapshot_list> looked =
      co_await root_.place().look([&] { return look_at(of, version); });
  snapshot_list found = co_await looked;
  if (!found.all && cached_ != nullptr && cached_version_ == found.version)
    co_return cached_;
  if (!found.all) // another look has replaced it meanwhile
    co_return co_await index();
  cached_ = std::make_shared<const snapshot_index>(*std::move(found.all));
  cached_of_ = &of;
  cached_version_ = found.version;
  cached_shape_ = shape;
  co_return cached_;
}

result<> root_snapshots::require_changeable() const {
  BGFS_CHECK(root_.require_medium());
  // The node says so, too, once the job has got to it.
  if (const job* const j = root_.attached() == nullptr ? nullptr : mount_.jobs.at_work_on(image()))
    return fail(error_kind::busy, "job '{}' works on '{}'; {}", j->id(), root_.name(),
                how_to_end(*j));
  if (root_.is_writable())
    return {};
  return fail(error{
      error_kind::permission,
      fmt::format("'{}' is exported read-only, its snapshots too; set 'writable: true' in its "
                  "export",
                  root_.name()),
      EROFS});
}

// --- creating, renaming ------------------------------------------------------------------------

std::vector<root_pointer> root_snapshots::myself() const {
  return {root_.shared_from_this()};
}

task<void> root_snapshots::create(std::string name) {
  return has_external_snapshots(root_)
             ? create_external_snapshots(mount_, myself(), std::move(name))
             : create_internal(std::move(name));
}

task<void> root_snapshots::create_internal(std::string name) {
  co_await root_.open(0);
  const auto guard = co_await changing_.lock();
  co_await require_changeable();
  const snapshot_index_pointer known = co_await index();
  if (known->find(name) != nullptr)
    co_await fail(snapshot_exists(root_, name));
  co_await create_locked(std::move(name));
}

task<void> root_snapshots::create_locked(std::string name) {
  node& of = image();
  (void)co_await root_.place().run([&] { return of.owner().create_snapshot(of, named_now(name)); });
}

task<void> root_snapshots::rename(std::string from, std::string to) {
  return has_external_snapshots(root_) ? rename_external_snapshot(mount_, root_.shared_from_this(),
                                                                  std::move(from), std::move(to))
                                       : rename_internal(std::move(from), std::move(to));
}

task<void> root_snapshots::rename_internal(std::string from, std::string to) {
  const auto guard = co_await changing_.lock();
  const snapshot_index_pointer known = co_await index();
  co_await require_changeable();
  const snapshot_info* const which = known->find(from);
  if (which == nullptr)
    co_await fail(no_such_snapshot(root_, from));
  if (const snapshot_info* const other = known->find(to); other != nullptr && other != which)
    co_await fail(snapshot_exists(root_, to));
  node& of = image();
  const snapshot_key key{.id = which->id, .name = {}};
  co_await root_.place().run([&] { return of.owner().rename_snapshot(of, key, to); });
}

// --- deleting ----------------------------------------------------------------------------------

std::string root_snapshots::directory_of(const std::string& key) const {
  return fmt::format("{}.d/snapshots/{}", root_.name(), key);
}

void root_snapshots::note_lister(const std::string& key, u32 pid) const {
  mount_.listers.note(process_of(pid), directory_of(key));
}

// Several roots may show one image.
result<> root_snapshots::require_not_held(const snapshot_info& which) const {
  for (const root_pointer& r : mount_.roots)
    if (r->leads_to(image()) && r->snapshots().is_held(key_of(which)))
      return fail(error_kind::busy,
                  "snapshot '{}' of '{}' is held; write 0 to its 'hold' file in {}.d/snapshots to "
                  "let it go",
                  which.name, root_.name(), r->name());
  return {};
}

task<void> root_snapshots::require_removable(snapshot_info which, u32 pid) {
  const std::string key = key_of(which);
  co_await require_not_held(which);
  co_await require_no_lister(mount_, pid, directory_of(key),
                             fmt::format("snapshot '{}' of '{}'", which.name, root_.name()));
  co_await require_soon([&]() -> result<> {
    const opener* const user = root_.beside().user_of("snapshots/" + key + "/");
    if (user == nullptr)
      return {};
    return fail(error_kind::busy,
                "snapshot '{}' of '{}' is open in process {} ({}); close it there", which.name,
                root_.name(), user->pid, user->command.empty() ? "?" : user->command);
  });
  co_await root_.beside().close_unused();
}

task<void> root_snapshots::remove_locked(snapshot_info which) {
  node& of = image();
  const snapshot_key key{.id = which.id, .name = which.name};
  co_await root_.place().run([&] { return of.owner().delete_snapshot(of, key); });
}

task<void> root_snapshots::remove(std::string shown_name, u32 pid) {
  return has_external_snapshots(root_)
             ? remove_external_snapshots(mount_, myself(), std::move(shown_name), pid)
             : remove_internal(std::move(shown_name), pid);
}

task<void> root_snapshots::remove_internal(std::string shown_name, u32 pid) {
  const auto guard = co_await changing_.lock();
  const snapshot_index_pointer known = co_await index();
  co_await require_changeable();
  const snapshot_info* const which = known->find(shown_name);
  if (which == nullptr)
    co_await fail(no_such_snapshot(root_, shown_name));
  co_await require_removable(*which, pid);
  co_await remove_locked(*which);
}

// --- reverting ---------------------------------------------------------------------------------

// Whoever has the disk open, through whichever root, would find another under his hands.
result<> root_snapshots::require_closed() const {
  const node& of = image();
  for (const root_pointer& r : mount_.roots) {
    if (!r->leads_to(of))
      continue;
    if (const opener* const o = r->first_opener())
      return fail(error_kind::busy,
                  "'{}' cannot go back to a snapshot while process {} ({}) has {} open; close it "
                  "there",
                  root_.name(), o->pid, o->command.empty() ? "?" : o->command, o->what);
  }
  return {};
}

task<void> root_snapshots::revert(std::string shown_name) {
  return has_external_snapshots(root_)
             ? revert_to_external_snapshot(mount_, root_.shared_from_this(), std::move(shown_name))
             : revert_internal(std::move(shown_name));
}

task<disk_use> root_snapshots::open_external(std::string key, u32 pid) {
  co_await root_.open(pid);
  side_disk_request request{.key = fmt::format("snapshots/{}/disk", key),
                            .name = fmt::format("{}.d/snapshots/{}/disk", root_.name(), key),
                            .driver = {},
                            .given = {},
                            .configured = node_of_snapshot(mount_, root_, key)};
  if (request.configured.empty())
    co_return fail(error_kind::not_found, "the snapshot of '{}' is gone", root_.name());
  disk_use use = co_await root_.beside().open(std::move(request), pid);
  co_return use;
}

task<void> root_snapshots::revert_internal(std::string shown_name) {
  const auto guard = co_await changing_.lock();
  const snapshot_index_pointer known = co_await index();
  co_await require_changeable();
  const snapshot_info* const which = known->find(shown_name);
  if (which == nullptr)
    co_await fail(no_such_snapshot(root_, shown_name));
  if (mount_.is_writeback())
    co_await fail(error_kind::busy,
                  "the kernel owns the content of '{}' while it is mounted with -o writeback; "
                  "mount it without, or use 'bgfs snapshot -a' while it is not mounted",
                  root_.name());
  co_await require_soon([this] { return require_closed(); });
  co_await revert_disk(*which);
}

task<void> root_snapshots::revert_disk(snapshot_info which) {
  node& of = image();
  const snapshot_key key{.id = which.id, .name = which.name};
  const result<> done =
      co_await as_result(root_.place().run([&] { return of.owner().revert_held(of, key); }));
  // Even if it failed it may have gone most of the way.
  for (const root_pointer& r : mount_.roots) {
    if (!r->leads_to(of))
      continue;
    co_await shielded(r->content_replaced());
  }
  co_await done;
}

} // namespace bgfs
