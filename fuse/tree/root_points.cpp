// SPDX-License-Identifier: MIT
#include "fuse/tree/root_points.h"

#include "fuse/tree/deliberate.h"
#include "fuse/tree/mount_state.h"
#include "fuse/tree/process.h"
#include "graph/io/spawn.h"

#include <algorithm>

namespace bgfs {

const point_file* point_of_root::find(std::string_view bitmap) const {
  const auto at = std::ranges::find(files, bitmap, &point_file::bitmap);
  return at == files.end() ? nullptr : &*at;
}

root_points::~root_points() {
  for (const point_pointer& p : all_)
    for (const point_file& f : p->files)
      BGFS_ASSERT(!f.disk->is_attached(), "a root ends after its points");
}

result<point_pointer> root_points::find(std::string_view name) const {
  const auto at = std::ranges::find(all_, name, [](const point_pointer& p) { return p->name; });
  if (at == all_.end())
    return fail(error_kind::not_found, "'{}' has no point '{}'; {}.d/points/ lists them",
                root_.name(), name, root_.name());
  return *at;
}

namespace {

// One user of a file of a point. The root outlives it.
class point_use {
public:
  point_use(root_pointer root, point_pointer of, opener who)
      : root_(std::move(root)), of_(std::move(of)),
        place_(of_->users.insert(of_->users.end(), std::move(who))) {}
  ~point_use() { of_->users.erase(place_); }
  point_use(const point_use&) = delete;
  point_use& operator=(const point_use&) = delete;

private:
  root_pointer root_;
  point_pointer of_;
  std::list<opener>::iterator place_;
};

} // namespace

task<disk_use> root_points::open(point_pointer of, std::string bitmap, u32 pid) {
  co_await root_.require_medium();
  const point_file* const file = of->find(bitmap);
  BGFS_ASSERT(file != nullptr, "an inode of a point names one of its files");
  co_await file->disk->require_attached(); // it may have ended
  opener who{.pid = pid,
             .command = command_of(pid),
             .is_writing = false,
             .shows_live = false,
             .what = file->disk->policy().name};
  co_return disk_use{file->disk.get(),
                     std::make_shared<point_use>(root_.shared_from_this(), of, std::move(who))};
}

namespace {

// On the loop of the node.
point_state look_at(const node& filter) {
  point_state s;
  const value counted = filter.instance().statistics_specific();
  if (const value* kept = counted.find("kept-bytes"); kept != nullptr)
    s.kept = static_cast<u64>(*kept->as_integer());
  if (const result<> whole = filter.as_frozen_disk()->check_frozen(); !whole)
    s.broken = whole.error().message();
  return s;
}

std::optional<point_state> look_for(const graph& nodes, std::string_view filter) {
  const node* const found = nodes.find(filter);
  return found == nullptr ? std::nullopt : std::optional(look_at(*found));
}

} // namespace

task<point_state> root_points::state(point_pointer of) {
  std::optional<point_state> s =
      co_await root_.place().look([&] { return look_for(root_.place().nodes(), of->filter); });
  if (!s)
    co_return fail(error_kind::not_found, "the point is gone");
  s->limit = of->limit;
  co_return *std::move(s);
}

void root_points::note_lister(const std::string& name, u32 pid) const {
  mount_.listers.note(process_of(pid), fmt::format("{}.d/points/{}", root_.name(), name));
}

task<void> root_points::release() {
  for (const point_pointer& p : all_)
    for (const point_file& f : p->files)
      co_await f.disk->release();
}

// --- ending ------------------------------------------------------------------------------------

result<> root_points::require_no_lister_of(const point_of_root& p, u32 pid) const {
  return require_no_lister(mount_, pid, fmt::format("{}.d/points/{}", root_.name(), p.name),
                           fmt::format("point '{}' of '{}'", p.name, root_.name()));
}

result<> root_points::require_unused(const point_of_root& p) const {
  if (p.users.empty())
    return {};
  const opener& o = p.users.front();
  return fail(error_kind::busy, "process {} ({}) has {} open; close it there", o.pid,
              o.command.empty() ? "?" : o.command, o.what);
}

namespace {

// What looks at the filter first: it keeps the filter where it is.
task<void> close_nodes(graph& in, std::vector<std::string> names, std::string filter) {
  for (const std::string& name : names)
    if (node* const n = in.find(name))
      co_await in.close(*n);
  if (node* const n = in.find(filter))
    co_await remove_filter(in, *n);
}

} // namespace

task<void> root_points::end(point_pointer gone) {
  std::erase(all_, gone);
  std::vector<std::string> names;
  for (const point_file& f : gone->files) {
    co_await root_.place().run([&] { return f.disk->release(); });
    names.insert(names.begin(), f.node_name); // increments, and then the disk that they are of
  }
  graph& in = root_.place().nodes();
  co_await root_.place().run([&] { return close_nodes(in, names, gone->filter); });
  gone->space = owned_fd();
}

task<void> end_points(mount_state& mount, std::vector<root_pointer> roots, std::string name,
                      u32 pid) {
  (void)mount;
  std::vector<point_pointer> found;
  for (const root_pointer& r : roots) {
    const point_pointer p = co_await r->points().find(name);
    co_await r->points().require_no_lister_of(*p, pid);
    co_await require_soon([&] { return r->points().require_unused(*p); });
    found.push_back(p);
  }
  for (std::size_t i = 0; i < roots.size(); i++)
    co_await shielded(roots[i]->points().end(found[i]));
}

} // namespace bgfs
