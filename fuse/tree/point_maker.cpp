// SPDX-License-Identifier: MIT
// Making points: space for what will be overwritten, then one edit for each graph, one inside the
// other, so that all roots are drained while the filters take their places. In that instant the
// frozen disks get what the bitmaps say as bitmaps of their own; increments are made of those, and
// of disks that do not change any more, when the roots are served again.
#include "config/reload_plan.h"
#include "fuse/tree/mount_state.h"
#include "fuse/tree/root_points.h"
#include "graph/io/offload.h"
#include "graph/io/spawn.h"
#include "graph/model/bitmap_change.h"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bgfs {
namespace {

struct opened_space {
  int fd = -1;
  int problem = 0;
};

// Without a name, so that nothing is left of it whatever happens to this process.
opened_space open_space(const std::string& directory, u64 length) {
  int fd = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) { // an old file system
    std::string name = directory + "/.bgfs-point-XXXXXX";
    fd = ::mkostemp(name.data(), O_CLOEXEC);
    if (fd >= 0)
      (void)::unlink(name.c_str());
  }
  if (fd < 0)
    return {-1, errno};
  if (::ftruncate(fd, static_cast<off_t>(length)) == 0)
    return {fd, 0};
  const int problem = errno;
  ::close(fd);
  return {-1, problem};
}

result<node_spec> make_node(const registry& drivers, std::string name, std::string_view driver,
                            value given) {
  const driver_type* const type = drivers.find(driver);
  if (type == nullptr)
    return fail(error_kind::unsupported, "this program was built without driver '{}'", driver);
  const std::array schemas = {type->open_options, &generic_node_schema};
  BGFS_TRY(options parsed, validate_options(schemas, given));
  node_spec spec{.node_name = std::move(name), .type = type, .given = std::move(parsed)};
  spec.generic = parse_generic_options(spec.given, nullptr, 0);
  spec.is_visitor = true;
  return spec;
}

child_spec child(std::string slot, std::string node_name) {
  return {.slot = std::move(slot), .target = std::move(node_name), .mark = {}};
}

// What a bitmap says in the instant, for a frozen disk that the edit opens.
struct bitmap_to_freeze {
  std::string disk; // the name of its node
  node* image;
  std::string name;
};

// All that happens to one graph in the instant.
struct graph_part {
  graph* of;
  graph_edit edit;
  std::vector<bitmap_change> begun;
  std::vector<bitmap_to_freeze> frozen;

  [[nodiscard]] std::vector<bitmap_change> bitmap_changes() const {
    std::vector<bitmap_change> all;
    for (const bitmap_to_freeze& f : frozen) {
      node* const disk = of->find(f.disk);
      BGFS_ASSERT(disk != nullptr, "the edit has opened it");
      all.push_back({.what = bitmap_change::kind::add,
                     .where = disk,
                     .name = f.name,
                     .granularity = f.image->bitmaps().find(f.name)->granularity(),
                     .is_enabled = false});
      all.push_back({.what = bitmap_change::kind::merge,
                     .where = disk,
                     .name = f.name,
                     .source = f.image,
                     .source_name = f.name});
    }
    all.insert(all.end(), begun.begin(), begun.end());
    return all;
  }
};

bitmap_change removal(node& of, std::string name) {
  return {.what = bitmap_change::kind::remove, .where = &of, .name = std::move(name)};
}

class instant {
public:
  explicit instant(std::vector<graph_part> parts) : parts_(std::move(parts)) {
    // Whoever enters several graphs does so in the same order.
    std::ranges::sort(parts_, std::less<>(), &graph_part::of);
  }

  // Each edit is prepared inside the one before it; nothing fails behind the last of them.
  task<void> apply(std::size_t index) {
    if (index == parts_.size()) {
      co_await begin_bitmaps();
      co_return;
    }
    graph_part& part = parts_[index];
    part.edit.before_commit = [this, index] { return apply(index + 1); };
    (void)co_await run_on(part.of->home(), part.of->apply(std::move(part.edit)));
  }

private:
  task<void> begin_bitmaps() {
    for (std::size_t i = 0; i < parts_.size(); i++) {
      result<> begun =
          co_await as_result(run_on(parts_[i].of->home(), change_bitmaps_of(parts_[i])));
      if (begun)
        continue;
      co_await undo_bitmaps(i);
      co_await fail(std::move(begun).error());
    }
  }
  static task<void> change_bitmaps_of(const graph_part& part) {
    co_await part.of->change_bitmaps_held(part.bitmap_changes());
  }
  // Those of frozen disks go with them.
  task<void> undo_bitmaps(std::size_t count) {
    for (std::size_t i = 0; i < count; i++) {
      std::vector<bitmap_change> back;
      for (const bitmap_change& c : parts_[i].begun)
        back.push_back(removal(*c.where, c.name));
      graph& of = *parts_[i].of;
      (void)co_await as_result(run_on(of.home(), of.change_bitmaps_held(std::move(back))));
    }
  }
  std::vector<graph_part> parts_;
};

} // namespace

class point_maker {
public:
  point_maker(mount_state& mount, std::vector<root_pointer> roots, std::string name)
      : mount_(mount), roots_(std::move(roots)), name_(std::move(name)) {}

  task<void> run() {
    for (const root_pointer& r : roots_) {
      co_await require_possible(*r);
      point_pointer p = co_await prepare(*r);
      points_.push_back(std::move(p));
    }
    co_await shielded(make());
  }

private:
  task<void> require_possible(exported_root& r) {
    co_await r.require_medium();
    if (!r.is_writable())
      co_await fail(
          error{error_kind::permission,
                fmt::format("'{}' is exported read-only: it does not change, and needs no "
                            "point; copy the raw file itself",
                            r.name()),
                EROFS});
    if (r.points().find(name_))
      co_await fail(error{error_kind::invalid_argument,
                          fmt::format("'{}' has a point '{}' already; take another name, or end it "
                                      "with rmdir",
                                      r.name(), name_),
                          EEXIST});
    const bitmap_index_pointer bitmaps = co_await r.bitmaps().index();
    if (bitmaps->find(name_) != nullptr)
      co_await fail(
          error{error_kind::invalid_argument,
                fmt::format("'{}' has a bitmap '{}' already, and a point begins one of its "
                            "name; take another name, or remove the bitmap",
                            r.name(), name_),
                EEXIST});
  }

  [[nodiscard]] std::string node_name(const exported_root& r, std::string_view what) const {
    return fmt::format("#{}.d/points/{}/{}", r.name(), name_, what);
  }

  task<point_pointer> prepare(exported_root& r) {
    const std::string& directory = r.spec().points_directory;
    co_await mount_.require_outside(directory);
    const u64 length = co_await r.place().look([&] { return r.disk()->length(); });
    const opened_space space = co_await offload([&] { return open_space(directory, length); });
    if (space.fd < 0)
      co_return fail(error::from_errno(
          space.problem, fmt::format("point '{}' of '{}' has no space in '{}' ('points: directory' "
                                     "of the export names another)",
                                     name_, r.name(), directory)));
    auto made = std::make_shared<point_of_root>();
    made->name = name_;
    made->space = owned_fd(space.fd);
    made->filter = node_name(r, "filter");
    made->limit = r.spec().points_limit;
    clock_gettime(CLOCK_REALTIME, &made->made);
    add_file(r, *made, "", "disk");
    std::vector<std::string> bitmaps = co_await r.place().run([&] { return usable_bitmaps(r); });
    for (std::string& bitmap : bitmaps) {
      const std::string file = fmt::format("since/{}.qcow2", escape_name(bitmap));
      add_file(r, *made, std::move(bitmap), file);
    }
    co_return made;
  }

  static void add_file(const exported_root& r, point_of_root& to, std::string bitmap,
                       const std::string& file) {
    const std::string path = fmt::format("{}.d/points/{}/{}", r.name(), to.name, file);
    to.files.push_back(
        {std::move(bitmap), "#" + path,
         std::make_unique<raw_disk>(disk_policy{.name = path, .is_only_a_view = false})});
  }

  // Those that can be trusted, with their bits in memory. On the loop of the nodes.
  static task<std::vector<std::string>> usable_bitmaps(exported_root& r) {
    node& image = r.bitmaps().image();
    std::vector<std::string> names;
    for (const auto& b : image.bitmaps().all())
      if (!b->is_inconsistent())
        names.push_back(b->name());
    std::vector<std::string> usable;
    for (std::string& name : names) {
      const auto read = co_await as_result(image.owner().read_bitmap(image, name));
      if (read)
        usable.push_back(std::move(name));
    }
    co_return usable;
  }

  // --- the instant ---

  task<void> make() {
    std::vector<graph_part> parts;
    for (std::size_t i = 0; i < roots_.size(); i++) {
      graph* const of = &roots_[i]->place().nodes();
      auto at = std::ranges::find(parts, of, &graph_part::of);
      if (at == parts.end())
        at = parts.insert(parts.end(), {.of = of, .edit = {}, .begun = {}, .frozen = {}});
      co_await plan(*roots_[i], *points_[i], *at);
    }
    instant now(std::move(parts));
    co_await now.apply(0);
    for (std::size_t i = 0; i < roots_.size(); i++)
      roots_[i]->points().all_.push_back(points_[i]);
    result<> shown = co_await as_result(show());
    if (shown)
      co_return;
    co_await undo();
    co_await std::move(shown);
  }

  task<void> undo() {
    for (std::size_t i = 0; i < roots_.size(); i++) {
      exported_root& r = *roots_[i];
      (void)co_await as_result(r.points().end(points_[i]));
      // Of several roots over one image it is gone with the first.
      (void)co_await as_result(
          r.place().run([&] { return remove_bitmap(r.bitmaps().image(), name_); }));
    }
  }
  static task<void> remove_bitmap(node& of, const std::string& name) {
    return of.owner().change_bitmaps({removal(of, name)});
  }

  [[nodiscard]] result<> plan(exported_root& r, const point_of_root& p, graph_part& into) const {
    // A new filter goes below those of other points, which stay where they are while somebody looks
    // at what they keep.
    node& top = below_points(r.disk()->top());
    node& image = r.bitmaps().image();
    // Of several roots over one node the filters stand one over the other, and all roots go over
    // the last: each sees every write.
    const auto step = std::ranges::find(into.edit.replaces, &top, &replace_step::from);
    const bool is_first = step == into.edit.replaces.end();
    BGFS_TRY(node_spec filter, filter_of(p, top, is_first ? top.name() : step->to));
    into.edit.opens.push_back(std::move(filter));
    if (is_first)
      into.edit.replaces.push_back({.from = &top, .to = p.filter});
    else
      step->to = p.filter;
    const registry& drivers = top.owner().drivers();
    value read_only = value::map();
    read_only.set("read-only", true);
    BGFS_TRY(node_spec disk,
             make_node(drivers, p.files.front().node_name, "snapshot-access", read_only));
    disk.children.push_back(child("file", p.filter));
    into.edit.opens.push_back(std::move(disk));
    for (const point_file& f : p.files)
      if (!f.bitmap.empty())
        into.frozen.push_back(
            {.disk = p.files.front().node_name, .image = &image, .name = f.bitmap});
    // Of several roots over one image it is the same bitmap.
    if (std::ranges::find(into.begun, &image, &bitmap_change::where) != into.begun.end())
      return {};
    into.begun.push_back({.what = bitmap_change::kind::add,
                          .where = &image,
                          .name = name_,
                          .is_persistent = root_bitmaps::why_in_memory(image).empty()});
    return {};
  }

  // With the options of what it is put over, so that roots find the same cache modes.
  [[nodiscard]] static result<node_spec> filter_of(const point_of_root& p, const node& top,
                                                   const std::string& below) {
    const registry& drivers = top.owner().drivers();
    value kept = value::map();
    kept.set("filename", fmt::format("/proc/self/fd/{}", p.space.get()));
    kept.set("locking", "off");
    kept.set("discard", "unmap");
    kept.set("cache.no-flush", true);
    BGFS_TRY(node_spec target, make_node(drivers, {}, "file", std::move(kept)));
    target.is_owned_by_parent = true;
    value given = value::map();
    given.set("on-cbw-error", "break-snapshot");
    if (p.limit)
      given.set("kept-max", *p.limit);
    BGFS_TRY(node_spec filter, make_node(drivers, p.filter, "copy-before-write", std::move(given)));
    filter.generic = top.generic();
    filter.generic.detect_zeroes = detect_zeroes_mode::off;
    filter.generic.discard = discard_mode::unmap;
    filter.generic.is_auto_read_only = false;
    filter.children.push_back(child("file", below));
    filter.children.push_back(
        {.slot = "target", .target = std::make_unique<node_spec>(std::move(target)), .mark = {}});
    return filter;
  }

  task<void> show() {
    for (std::size_t i = 0; i < roots_.size(); i++) {
      graph& of = roots_[i]->place().nodes();
      for (const point_file& f : points_[i]->files) {
        if (!f.bitmap.empty())
          co_await roots_[i]->place().run([&] { return open_increment(of, *points_[i], f); });
        co_await roots_[i]->place().run([&] { return attach(of, f); });
      }
      for (const point_file& f : points_[i]->files)
        f.disk->time().begin(points_[i]->made);
    }
  }
  // Others write meanwhile. Its driver keeps what it has read of the bitmap.
  static task<void> open_increment(graph& of, const point_of_root& p, const point_file& f) {
    const std::string& disk = p.files.front().node_name;
    value given = value::map();
    given.set("read-only", true);
    given.set("bitmap-node", disk);
    given.set("bitmap", f.bitmap);
    node_spec since =
        co_await make_node(of.drivers(), f.node_name, "qcow2-increment", std::move(given));
    since.children.push_back(child("file", disk));
    (void)co_await of.open(std::move(since));
    co_await of.change_bitmaps({removal(*of.find(disk), f.bitmap)});
  }
  static task<void> attach(graph& of, const point_file& f) {
    node* const top = of.find(f.node_name);
    BGFS_ASSERT(top != nullptr, "the edit opened it");
    return f.disk->attach(*top, {permission::consistent_read, permission::all}, nullptr);
  }

  mount_state& mount_;
  std::vector<root_pointer> roots_;
  std::string name_;
  std::vector<point_pointer> points_;
};

task<void> create_points(mount_state& mount, std::vector<root_pointer> roots, std::string name) {
  co_await check_bitmap_name(name);
  for (const root_pointer& r : roots)
    co_await r->open(0);
  const auto guard = co_await mount.opening.lock();
  point_maker maker(mount, std::move(roots), std::move(name));
  co_await maker.run();
}

} // namespace bgfs
