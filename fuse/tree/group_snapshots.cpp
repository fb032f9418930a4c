// SPDX-License-Identifier: MIT
#include "fuse/tree/group_snapshots.h"

#include "fuse/tree/deliberate.h"
#include "fuse/tree/external_snapshots.h"
#include "fuse/tree/mount_state.h"
#include "fuse/tree/process.h"
#include "graph/model/snapshot_group.h"

#include <algorithm>

namespace bgfs {
namespace {

std::string directory_of(const std::string& name) {
  return ".bgfs/snapshots/" + name;
}

// Several roots may show one image, which has its snapshots once.
std::vector<root_pointer> with_own_image(const std::vector<root_pointer>& roots) {
  std::vector<root_pointer> first;
  for (const root_pointer& r : roots)
    if (std::ranges::none_of(first, [&](const root_pointer& other) {
          return &other->snapshots().image() == &r->snapshots().image();
        }))
      first.push_back(r);
  return first;
}

result<> require_some(const std::vector<root_pointer>& roots) {
  if (!roots.empty())
    return {};
  return fail(error_kind::not_found,
              "no root is open and writable, so that there is nothing to take a snapshot of");
}

} // namespace

std::vector<root_pointer> group_roots(const mount_state& mount) {
  std::vector<root_pointer> found;
  for (const root_pointer& r : mount.roots)
    if (r->phase() == root_phase::open && r->is_writable())
      found.push_back(r);
  return found;
}

task<std::vector<async_mutex::guard>> lock_snapshots(const std::vector<root_pointer>& roots) {
  std::vector<async_mutex::guard> guards;
  for (const root_pointer& r : roots) {
    async_mutex::guard one = co_await r->snapshots().lock_changes();
    guards.push_back(std::move(one));
  }
  co_return guards;
}

bool has_external_group(const mount_state& mount) {
  return std::ranges::any_of(group_roots(mount),
                             [](const root_pointer& r) { return has_external_snapshots(*r); });
}

namespace {
// An image keeps its own snapshots while it is drained, an overlay comes with an edit of the graph:
// the two have no instant in common.
result<> require_one_kind(const std::vector<root_pointer>& roots) {
  for (const root_pointer& r : roots)
    if (has_external_snapshots(*r) != has_external_snapshots(*roots.front()))
      return fail(error_kind::unsupported,
                  "'{}' and '{}' do not both keep external snapshots, and there is no snapshot of "
                  "both at one instant; give them one 'snapshots: mode', or make a point",
                  roots.front()->name(), r->name());
  return {};
}
} // namespace

task<std::vector<std::string>> group_names(mount_state& mount) {
  const std::vector<root_pointer> roots = group_roots(mount);
  std::vector<snapshot_index_pointer> all;
  for (const root_pointer& r : roots) {
    snapshot_index_pointer one = co_await r->snapshots().index();
    all.push_back(std::move(one));
  }
  std::vector<std::string> names;
  if (all.empty())
    co_return names;
  std::ranges::copy_if(all.front()->names(), std::back_inserter(names), [&](const std::string& n) {
    return !n.empty() && std::ranges::all_of(all, [&](const snapshot_index_pointer& one) {
      return one->find(n) != nullptr;
    });
  });
  co_return names;
}

task<bool> is_group_name(mount_state& mount, std::string name) {
  const std::vector<root_pointer> roots = group_roots(mount);
  for (const root_pointer& r : roots) {
    const snapshot_index_pointer known = co_await r->snapshots().index();
    if (known->find(name) == nullptr)
      co_return false;
  }
  co_return !roots.empty();
}

task<void> create_group_snapshot(mount_state& mount, std::string name) {
  if (has_external_group(mount)) {
    co_await require_one_kind(group_roots(mount));
    co_return co_await create_external_snapshots(mount, group_roots(mount), std::move(name));
  }
  const std::vector<root_pointer> roots = with_own_image(group_roots(mount));
  co_await require_some(roots);
  const std::vector<async_mutex::guard> guards = co_await lock_snapshots(roots);
  std::vector<node*> images;
  for (const root_pointer& r : roots) {
    co_await r->snapshots().require_changeable();
    const snapshot_index_pointer known = co_await r->snapshots().index();
    if (known->find(name) != nullptr)
      co_await fail(snapshot_exists(*r, name));
    node* const image =
        co_await context(find_snapshottable(r->snapshots().image()),
                         "root '{}', which is open and writable as well", r->name());
    images.push_back(image);
  }
  (void)co_await create_snapshots(std::move(images), named_now(std::move(name)));
}

task<void> remove_group_snapshot(mount_state& mount, std::string name, u32 pid) {
  if (has_external_group(mount)) {
    co_await require_one_kind(group_roots(mount));
    co_await require_no_lister(mount, pid, directory_of(name),
                               fmt::format("snapshot '{}' of all roots", name));
    co_return co_await remove_external_snapshots(mount, group_roots(mount), std::move(name), pid);
  }
  const std::vector<root_pointer> roots = with_own_image(group_roots(mount));
  co_await require_some(roots);
  const std::vector<async_mutex::guard> guards = co_await lock_snapshots(roots);
  co_await require_no_lister(mount, pid, directory_of(name),
                             fmt::format("snapshot '{}' of all roots", name));
  std::vector<snapshot_info> found;
  for (const root_pointer& r : roots) {
    co_await r->snapshots().require_changeable();
    const snapshot_index_pointer known = co_await r->snapshots().index();
    const snapshot_info* const which = known->find(name);
    if (which == nullptr)
      co_await fail(no_such_snapshot(*r, name));
    co_await r->snapshots().require_removable(*which, pid);
    found.push_back(*which);
  }
  std::string gone;
  for (std::size_t i = 0; i < roots.size(); i++) {
    result<> removed = co_await as_result(roots[i]->snapshots().remove_locked(found[i]));
    if (!removed && !gone.empty())
      removed.error().add_context(fmt::format("it is deleted from{} alone", gone));
    co_await std::move(removed);
    gone += (gone.empty() ? " '" : ", '") + roots[i]->name() + "'";
  }
}

void note_group_lister(mount_state& mount, const std::string& name, u32 pid) {
  mount.listers.note(process_of(pid), directory_of(name));
}

} // namespace bgfs
