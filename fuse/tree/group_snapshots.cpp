// SPDX-License-Identifier: MIT
#include "fuse/tree/group_snapshots.h"

#include "fuse/tree/deliberate.h"
#include "fuse/tree/external_snapshots.h"
#include "fuse/tree/mount_state.h"
#include "fuse/tree/process.h"
#include "graph/model/snapshot_group.h"

#include <algorithm>
#include <cerrno>
#include <map>

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

std::vector<root_pointer> writable_roots(const mount_state& mount) {
  std::vector<root_pointer> found;
  for (const root_pointer& r : mount.roots)
    if (r->is_writable())
      found.push_back(r);
  return found;
}

std::vector<root_pointer> open_roots(const mount_state& mount) {
  std::vector<root_pointer> found = writable_roots(mount);
  std::erase_if(found, [](const root_pointer& r) { return r->phase() != root_phase::open; });
  return found;
}

result<> require_some(const std::vector<root_pointer>& roots) {
  if (!roots.empty())
    return {};
  return fail(error_kind::not_found,
              "no root is writable, so that there is nothing to take a snapshot of");
}

} // namespace

task<std::vector<root_pointer>> open_group(mount_state& mount, u32 pid) {
  const std::vector<root_pointer> roots = writable_roots(mount);
  for (const root_pointer& r : roots)
    if (const result<> opened = co_await as_result(r->open(pid)); !opened)
      co_return fail(error{error_kind::not_found,
                           fmt::format("all writable roots are in it, or none: {}; 'echo retry > "
                                       "{}.d/ctl' tries that again, and each root's own directory "
                                       "is about it alone",
                                       opened.error().message(), r->name()),
                           ENOMEDIUM});
  co_return roots;
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
  return std::ranges::any_of(writable_roots(mount),
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
  const std::vector<root_pointer> roots = with_own_image(open_roots(mount));
  std::vector<snapshot_index_pointer> all;
  for (const root_pointer& r : roots) {
    snapshot_index_pointer one = co_await r->snapshots().index();
    all.push_back(std::move(one));
  }
  std::map<std::string_view, std::size_t> count;
  for (const snapshot_index_pointer& one : all)
    for (const std::string& n : one->names())
      count[n]++;
  std::vector<std::string> names;
  for (const snapshot_index_pointer& one : all)
    for (const std::string& n : one->names())
      if (std::size_t& roots_with_it = count[n];
          !n.empty() && roots_with_it >= std::min<std::size_t>(all.size(), 2)) {
        names.push_back(n);
        roots_with_it = 0; // listed
      }
  co_return names;
}

task<std::vector<root_pointer>> group_with(mount_state& mount, std::string name) {
  std::vector<root_pointer> found;
  for (const root_pointer& r : open_roots(mount)) {
    const snapshot_index_pointer known = co_await r->snapshots().index();
    if (known->find(name) != nullptr)
      found.push_back(r);
  }
  const std::size_t images = with_own_image(open_roots(mount)).size();
  if (with_own_image(found).size() < std::min<std::size_t>(images, 2))
    found.clear();
  co_return found;
}

namespace {

// What changes external snapshots holds `looking` only where it has to.
task<std::vector<root_pointer>> open_external_group(mount_state& mount, u32 pid) {
  const auto looking = co_await mount.looking.lock_shared();
  std::vector<root_pointer> all = co_await open_group(mount, pid);
  co_await require_one_kind(all);
  co_return all;
}

task<std::vector<root_pointer>> find_external_group(mount_state& mount, const std::string& name,
                                                    u32 pid) {
  (void)co_await open_external_group(mount, pid);
  const auto looking = co_await mount.looking.lock_shared();
  std::vector<root_pointer> all = co_await group_with(mount, name);
  co_return all;
}

result<> require_found(const std::vector<root_pointer>& with_it, const std::string& name) {
  if (!with_it.empty())
    return {};
  return fail(error_kind::not_found,
              "there is no snapshot '{}' of several roots; .bgfs/snapshots/ lists them", name);
}

} // namespace

task<void> create_group_snapshot(mount_state& mount, std::string name, u32 pid) {
  if (has_external_group(mount)) {
    std::vector<root_pointer> all = co_await open_external_group(mount, pid);
    co_return co_await create_external_snapshots(mount, std::move(all), std::move(name));
  }
  const std::vector<root_pointer> all = co_await open_group(mount, pid);
  co_await require_some(all);
  const std::vector<root_pointer> roots = with_own_image(all);
  const std::vector<async_mutex::guard> guards = co_await lock_snapshots(roots);
  std::vector<node*> images;
  for (const root_pointer& r : roots) {
    co_await r->snapshots().require_changeable();
    const snapshot_index_pointer known = co_await r->snapshots().index();
    if (known->find(name) != nullptr)
      co_await fail(snapshot_exists(*r, name));
    node* const image = co_await context(find_snapshottable(r->snapshots().image()),
                                         "root '{}', which is writable as well", r->name());
    images.push_back(image);
  }
  (void)co_await create_snapshots(std::move(images), named_now(std::move(name)));
}

task<void> remove_group_snapshot(mount_state& mount, std::string name, u32 pid) {
  const std::string what = fmt::format("snapshot '{}' of all roots", name);
  if (has_external_group(mount)) {
    std::vector<root_pointer> all = co_await find_external_group(mount, name, pid);
    co_await require_found(all, name);
    co_await require_no_lister(mount, pid, directory_of(name), what);
    co_return co_await remove_external_snapshots(mount, std::move(all), std::move(name), pid);
  }
  (void)co_await open_group(mount, pid);
  const std::vector<root_pointer> all = co_await group_with(mount, name);
  co_await require_found(all, name);
  co_await require_no_lister(mount, pid, directory_of(name), what);
  const std::vector<root_pointer> roots = with_own_image(all);
  const std::vector<async_mutex::guard> guards = co_await lock_snapshots(roots);
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
