// SPDX-License-Identifier: MIT
#include "fuse/tree/external_snapshots.h"

#include "fuse/tree/deliberate.h"
#include "fuse/tree/group_snapshots.h"
#include "fuse/tree/mount_state.h"
#include "fuse/tree/overlay_files.h"
#include "fuse/tree/overlay_merging.h"
#include "fuse/tree/reload.h"
#include "graph/io/offload.h"
#include "graph/io/spawn.h"

#include <algorithm>
#include <cerrno>

namespace bgfs {

bool has_external_snapshots(const exported_root& root) {
  return root.spec().snapshots == snapshot_mode::external;
}

namespace {

using snapshot_list = std::vector<external_snapshot>;

const snapshot_list& listed(const mount_state& mount, const exported_root& root) {
  static const snapshot_list none;
  const auto& all = mount.config().state().snapshots;
  const auto at = all.find(root.name());
  return at == all.end() ? none : at->second;
}

snapshot_info to_info(const external_snapshot& s) {
  return {.id = s.id,
          .name = s.name,
          .date_seconds = static_cast<u32>(s.date_seconds),
          .date_nanoseconds = static_cast<u32>(s.date_nanoseconds),
          .disk_length = s.length};
}

// The exports that show a node: they go on together, over one overlay.
std::vector<std::string> exports_of(const mount_state& mount, std::string_view node_name) {
  std::vector<std::string> names;
  for (const export_spec& e : mount.config().exports())
    if (e.node_name == node_name)
      names.push_back(e.name);
  return names;
}

// Of several roots over one node, the first.
std::vector<root_pointer> with_own_node(const std::vector<root_pointer>& roots) {
  std::vector<root_pointer> first;
  for (const root_pointer& r : roots)
    if (std::ranges::find(first, r->spec().node_name, [](const root_pointer& other) {
          return other->spec().node_name;
        }) == first.end())
      first.push_back(r);
  return first;
}

std::string next_id(const snapshot_list& all) {
  u64 most = 0;
  for (const external_snapshot& s : all)
    most = std::max<u64>(most, std::strtoull(s.id.c_str(), nullptr, 10));
  return fmt::format("{}", most + 1);
}

// What an overlay would leave behind, or give away.
task<void> require_possible(mount_state& mount, const root_pointer& r) {
  co_await r->open(0);
  co_await r->snapshots().require_changeable();
  if (!r->points().all().empty())
    co_await fail(error_kind::busy,
                  "'{}' has point '{}', which stands between it and its image; end it with rmdir "
                  "first",
                  r->name(), r->points().all().front()->name);
  node& top = r->disk()->top();
  if (top.name() != r->spec().node_name || top.is_filter())
    co_await fail(
        error_kind::unsupported,
        "'{}' shows {}, which is no image by itself; external snapshots are of roots that "
        "show an image",
        r->name(), top.describe());
  const driver_info info = co_await r->place().look([&top] { return top.instance().info(); });
  if (info.is_encrypted)
    co_await fail(error_kind::unsupported,
                  "'{}' is encrypted, and an overlay would hold what is written from now on in the "
                  "clear; use 'snapshots: {{mode: internal}}'",
                  r->name());
  const bitmap_index_pointer bitmaps = co_await r->bitmaps().index();
  if (!bitmaps->shown().empty())
    co_await fail(error_kind::busy,
                  "'{}' has bitmap '{}', which would not see what is written to an overlay; remove "
                  "it first, and let the next backup be a full one",
                  r->name(), bitmaps->shown().front());
  co_await mount.require_outside(r->spec().snapshots_directory);
}

task<u64> length_of(const root_pointer& r) {
  const u64 length = co_await r->place().look([&] { return r->disk()->length(); });
  co_return length;
}

// An overlay for each root, over what it shows now.
task<std::vector<overlay_file>> make_overlays(mount_state& mount,
                                              const std::vector<root_pointer>& roots) {
  std::vector<overlay_file> made;
  for (const root_pointer& r : roots) {
    const u64 length = co_await length_of(r);
    node& below = r->disk()->top();
    result<overlay_file> one =
        co_await as_result(make_overlay_file(mount, *r, below, length, made.size()));
    if (!one) {
      remove_overlay_files(made);
      co_return fail(std::move(one).error());
    }
    made.push_back(*std::move(one));
  }
  co_return made;
}

} // namespace

snapshot_index external_index(const mount_state& mount, const exported_root& root) {
  std::vector<snapshot_info> all;
  for (const external_snapshot& s : listed(mount, root))
    all.push_back(to_info(s));
  return snapshot_index(std::move(all));
}

std::string node_of_snapshot(const mount_state& mount, const exported_root& root,
                             std::string_view key) {
  for (const external_snapshot& s : listed(mount, root))
    if (key_of(to_info(s)) == key)
      return s.node;
  return {};
}

namespace {

// The state with an overlay in it, which these exports show.
void put_over(graph_state& state, const overlay_file& o, const std::vector<std::string>& exports) {
  state.nodes.push_back(o.definition);
  for (const std::string& e : exports)
    state.exports[e] = o.node_name;
}

// A state file that could not be made durable may name them all the same.
bool forget(const std::string& source, const std::vector<overlay_file>& overlays) {
  const result<graph_state> written = read_graph_state(source);
  if (!written)
    return false;
  for (const overlay_file& o : overlays)
    if (std::ranges::none_of(written->nodes, [&](const value& v) {
          const value* const name = v.find("node-name");
          return name != nullptr && name->as_text() != nullptr && *name->as_text() == o.node_name;
        }))
      remove_overlay_files(std::span(&o, 1));
  return true;
}

// Who asked may go.
task<void> change_to_the_end(mount_state& mount, std::function<void(graph_state&)> change,
                             std::function<task<void>(graph_state&)> before_commit = {}) {
  co_await shielded(
      change_state_at_run_time(mount, std::move(change), 0, std::move(before_commit)));
}

// A disk may have become longer, or shorter, since its overlay was made. Now nobody writes, and an
// overlay has the length of the disk that it becomes.
task<void> settle_lengths(mount_state& mount, const std::vector<overlay_file>& overlays,
                          graph_state& state) {
  for (const overlay_file& o : overlays) {
    const node* const below = mount.nodes.find(o.below);
    node* const above = mount.nodes.find(o.node_name);
    if (below == nullptr || above == nullptr || !o.follows_length ||
        below->length() == above->length())
      continue;
    co_await above->truncate(below->length(), {.is_new_overlay = true, .may_be_backing = true});
    for (auto& [root, all] : state.snapshots)
      for (external_snapshot& s : all)
        if (s.node == o.below && s.length == o.length)
          s.length = below->length();
  }
}

task<void> put_overlays(mount_state& mount, std::vector<overlay_file> overlays,
                        std::function<void(graph_state&)> change) {
  const result<> done =
      co_await as_result(change_to_the_end(mount, std::move(change), [&](graph_state& state) {
        return settle_lengths(mount, overlays, state);
      }));
  if (!done)
    co_await offload([&] { return forget(mount.config().source(), overlays); });
  co_await done;
}

} // namespace

task<void> create_external_snapshots(mount_state& mount, std::vector<root_pointer> roots,
                                     std::string name) {
  const auto guards = co_await lock_snapshots(roots);
  std::vector<overlay_file> overlays;
  const std::vector<root_pointer> first = with_own_node(roots);
  {
    const auto looking = co_await mount.looking.lock_shared();
    for (const root_pointer& r : roots) {
      co_await require_possible(mount, r);
      if (external_index(mount, *r).find(name) != nullptr)
        co_await fail(snapshot_exists(*r, name));
    }
    overlays = co_await make_overlays(mount, first);
  }
  std::timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  co_await put_overlays(mount, overlays, [&](graph_state& state) {
    for (const overlay_file& o : overlays) {
      const std::vector<std::string> exports = exports_of(mount, o.below);
      put_over(state, o, exports);
      for (const std::string& e : exports) {
        snapshot_list& all = state.snapshots[e];
        all.push_back({.id = next_id(all),
                       .name = name,
                       .node = o.below,
                       .length = o.length,
                       .date_seconds = now.tv_sec,
                       .date_nanoseconds = now.tv_nsec});
      }
    }
  });
}

// --- removing ----------------------------------------------------------------------------------

namespace {

task<std::vector<external_snapshot>> find_removable(mount_state& mount,
                                                    const std::vector<root_pointer>& roots,
                                                    const std::string& shown_name, u32 pid) {
  const auto looking = co_await mount.looking.lock_shared();
  std::vector<external_snapshot> found;
  for (const root_pointer& r : roots) {
    co_await r->open(0);
    co_await r->snapshots().require_changeable();
    const snapshot_index known = external_index(mount, *r);
    const snapshot_info* const which = known.find(shown_name);
    if (which == nullptr)
      co_return fail(no_such_snapshot(*r, shown_name));
    co_await r->snapshots().require_removable(*which, pid);
    found.push_back(*std::ranges::find(listed(mount, *r), which->id, &external_snapshot::id));
  }
  co_return found;
}

bool is_same(const external_snapshot& a, const external_snapshot& b) {
  return a.node == b.node && a.date_seconds == b.date_seconds &&
         a.date_nanoseconds == b.date_nanoseconds;
}

// From all roots that show the image.
void take_off(graph_state& state, const external_snapshot& gone) {
  for (auto& [root, all] : state.snapshots)
    std::erase_if(all, [&](const external_snapshot& s) { return is_same(s, gone); });
  std::erase_if(state.snapshots, [](const auto& of_root) { return of_root.second.empty(); });
}

// The overlay that is being written cannot be merged into what is below it; one that nobody writes
// to any more can. So it gets another one over it, and is merged then.
task<void> freeze_for_merging(mount_state& mount, const std::vector<root_pointer>& roots,
                              const std::vector<external_snapshot>& gone) {
  std::vector<overlay_file> overlays;
  {
    const auto looking = co_await mount.looking.lock_shared();
    std::vector<root_pointer> last;
    for (const root_pointer& r : with_own_node(roots)) {
      node* const below = r->disk() == nullptr ? nullptr : r->disk()->top().next_in_chain();
      if (below != nullptr &&
          std::ranges::find(gone, below->name(), &external_snapshot::node) != gone.end())
        last.push_back(r);
    }
    overlays = co_await make_overlays(mount, last);
  }
  if (!overlays.empty())
    co_await put_overlays(mount, overlays, [&](graph_state& state) {
      for (const overlay_file& o : overlays)
        put_over(state, o, exports_of(mount, o.below));
    });
}

task<void> merge(mount_state& mount, const root_pointer& root) {
  if (!has_overlays_to_merge(mount))
    co_return;
  const job_pointer begun = co_await mount.jobs.start(
      {.what = {.id = "merge-" + root->name(),
                .type = "merge",
                .has_pause_points = true,
                .when_cancelled = "it goes on when the next snapshot is deleted",
                .has_audience = true},
       .root = root},
      [&mount](job& control) { return merge_overlays(mount, control); });
  co_await mount.jobs.list().await_or_cancel(begun);
}

task<void> merge_quietly(mount_state& mount, const std::vector<root_pointer>& roots,
                         const std::vector<external_snapshot>& gone) {
  result<> merged = co_await as_result(freeze_for_merging(mount, roots, gone));
  if (merged)
    merged = co_await as_result(merge(mount, roots.front()));
  if (merged)
    co_return;
  merged.error().add_context("the snapshot is deleted, and its space not given back yet");
  roots.front()->log.add(0, "merge", merged.error());
}

} // namespace

task<void> remove_external_snapshots(mount_state& mount, std::vector<root_pointer> roots,
                                     std::string shown_name, u32 pid) {
  const auto guards = co_await lock_snapshots(roots);
  const std::vector<external_snapshot> gone =
      co_await find_removable(mount, roots, shown_name, pid);
  // First of all it is off the list: merging changes what it showed.
  co_await change_to_the_end(mount, [&](graph_state& state) {
    for (const external_snapshot& s : gone)
      take_off(state, s);
  });
  co_await merge_quietly(mount, roots, gone);
}

// --- renaming, reverting -----------------------------------------------------------------------

task<void> rename_external_snapshot(mount_state& mount, root_pointer root, std::string from,
                                    std::string to) {
  const auto guard = co_await root->snapshots().lock_changes();
  const snapshot_index known = external_index(mount, *root);
  co_await root->snapshots().require_changeable();
  const snapshot_info* const which = known.find(from);
  if (which == nullptr)
    co_await fail(no_such_snapshot(*root, from));
  if (const snapshot_info* const other = known.find(to); other != nullptr && other != which)
    co_await fail(snapshot_exists(*root, to));
  const external_snapshot named =
      *std::ranges::find(listed(mount, *root), which->id, &external_snapshot::id);
  co_await change_to_the_end(mount, [&](graph_state& state) {
    for (auto& [name, all] : state.snapshots)
      for (external_snapshot& s : all)
        if (is_same(s, named))
          s.name = to;
  });
}

task<void> revert_to_external_snapshot(mount_state& mount, root_pointer root,
                                       std::string shown_name) {
  const auto guard = co_await root->snapshots().lock_changes();
  std::vector<overlay_file> overlays;
  std::vector<std::string> exports;
  {
    const auto looking = co_await mount.looking.lock_shared();
    co_await require_possible(mount, root);
    const snapshot_index known = external_index(mount, *root);
    const snapshot_info* const which = known.find(shown_name);
    if (which == nullptr)
      co_await fail(no_such_snapshot(*root, shown_name));
    co_await require_soon([&] { return root->snapshots().require_closed(); });
    exports = exports_of(mount, root->spec().node_name);
    const disk_use use = co_await root->snapshots().open_external(key_of(*which), 0);
    overlay_file made =
        co_await make_overlay_file(mount, *root, use.disk->top(), which->disk_length, 0);
    made.follows_length = false;
    overlays.push_back(std::move(made));
  }
  co_await root->beside().close_unused();
  co_await put_overlays(mount, overlays,
                        [&](graph_state& state) { put_over(state, overlays.front(), exports); });
  co_await merge_quietly(mount, {root}, {});
}

} // namespace bgfs
