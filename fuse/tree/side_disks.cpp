// SPDX-License-Identifier: MIT
#include "fuse/tree/side_disks.h"

#include "fuse/tree/mount_state.h"
#include "fuse/tree/process.h"
#include "graph/io/spawn.h"

#include <algorithm>

namespace bgfs {

struct side_disks::entry {
  std::string key;
  std::unique_ptr<raw_disk> disk;
  bool is_configured = false; // it shows a node of the configuration
  node* top = nullptr;        // null: it is not open
  std::list<opener> users;
};

// One user of a disk. The root outlives it.
class side_disks::use {
public:
  use(root_pointer root, side_disks& in, entry_pointer of, opener who)
      : root_(std::move(root)), in_(in), of_(std::move(of)),
        place_(of_->users.insert(of_->users.end(), std::move(who))) {}
  ~use() {
    of_->users.erase(place_);
    if (of_->users.empty())
      in_.last_user_left();
  }
  use(const use&) = delete;
  use& operator=(const use&) = delete;

private:
  root_pointer root_;
  side_disks& in_;
  entry_pointer of_;
  std::list<opener>::iterator place_;
};

side_disks::~side_disks() {
  BGFS_ASSERT(
      std::ranges::none_of(entries_, [](const auto& e) { return e.second->disk->is_attached(); }),
      "a root ends after what is shown beside it");
}

disk_use side_disks::use_of(entry_pointer of, u32 pid) {
  raw_disk* const disk = of->disk.get();
  return {disk, std::make_shared<use>(root_.shared_from_this(), *this, std::move(of),
                                      opener{.pid = pid,
                                             .command = command_of(pid),
                                             .is_writing = false,
                                             .shows_live = false,
                                             .what = disk->policy().name})};
}

// Nothing is opened, closed or reloaded meanwhile, anywhere in the mount. One that nobody uses may
// be on its way out: whoever closes it holds the lock, too.
task<disk_use> side_disks::open(side_disk_request request, u32 pid) {
  if (const auto known = entries_.find(request.key);
      known != entries_.end() && !known->second->users.empty())
    co_return use_of(known->second, pid);
  const auto guard = co_await mount_.opening.lock();
  co_await root_.require_medium();
  if (const auto known = entries_.find(request.key); known != entries_.end())
    co_return use_of(known->second, pid);
  auto made = std::make_shared<entry>();
  made->key = request.key;
  made->is_configured = !request.configured.empty();
  made->disk =
      std::make_unique<raw_disk>(disk_policy{.name = request.name, .is_only_a_view = true});
  result<> opened = co_await as_result(shielded_open(*made, request));
  if (!opened) {
    root_.log.add(pid, "open", opened.error());
    co_await fail(std::move(opened).error());
  }
  entries_.emplace(request.key, made);
  co_return use_of(std::move(made), pid);
}

namespace {

// Named for what it shows, which is there once; what it is called may be another's name by now.
result<node_spec> spec_of(const exported_root& root, node& image, side_disk_request& request) {
  const registry& drivers = image.owner().drivers();
  const driver_type* const type = drivers.find(request.driver);
  if (type == nullptr)
    return fail(error_kind::unsupported, "this program was built without driver '{}'",
                request.driver);
  request.given.set("read-only", true);
  const std::array schemas = {type->open_options, &generic_node_schema};
  BGFS_TRY(options given, validate_options(schemas, request.given));
  node_spec spec{.node_name = fmt::format("#{}.d/{}", root.name(), request.key),
                 .type = type,
                 .given = std::move(given),
                 .generic = {},
                 .children = {},
                 .is_visitor = true};
  spec.generic = parse_generic_options(spec.given, nullptr, 0);
  spec.children.push_back({.slot = "file", .target = image.name(), .mark = {}});
  return spec;
}

// Nobody opens any meanwhile: visitors that are there for nobody. Who opened one may not have been
// the last to need it.
task<void> close_unneeded_visitors(graph& nodes) {
  result<> first;
  for (;;) {
    const auto unneeded = std::ranges::find_if(nodes.nodes(), [](const auto& n) {
      return n->is_visitor() && n->parents().empty();
    });
    if (unneeded == nodes.nodes().end())
      break;
    result<> closed = co_await as_result(nodes.close(**unneeded));
    if (first)
      first = std::move(closed);
  }
  co_await std::move(first);
}

} // namespace

// Who asked may go; others may be waiting for the lock.
task<void> side_disks::shielded_open(entry& made, side_disk_request& request) {
  co_await shielded(root_.place().run([&] { return open_below(made, request); }));
}

task<void> side_disks::open_below(entry& made, side_disk_request& request) {
  result<> ready =
      co_await as_result(request.configured.empty() ? open_own_node(made, request)
                                                    : open_configured(made, request.configured));
  if (ready)
    ready = co_await as_result(
        made.disk->attach(*made.top, {permission::consistent_read, permission::all}, nullptr));
  if (ready) {
    made.disk->time().begin(request.modified);
    co_return;
  }
  if (made.top != nullptr)
    (void)co_await as_result(close_unneeded_visitors(made.top->owner())); // the first error counts
  co_await fail(std::move(ready).error());
}

task<void> side_disks::open_own_node(entry& made, side_disk_request& request) {
  node& image = *root_.disk()->top().skip_filters();
  if (request.before)
    co_await request.before(image);
  node_spec spec = co_await spec_of(root_, image, request);
  made.top = co_await image.owner().open(std::move(spec));
  if (request.verify)
    co_await request.verify(image);
}

// Nobody reads the configuration again meanwhile: who opened it holds mount_state::opening.
task<void> side_disks::open_configured(entry& made, const std::string& name) {
  const graph_config& config = mount_.config();
  graph& nodes = root_.disk()->top().owner();
  for (const std::string& needed : config.opening_order(name)) {
    made.top = nodes.find(needed);
    if (made.top != nullptr)
      continue;
    node_spec spec = co_await config.make_node_spec(needed);
    spec.references = &config.references(root_.spec());
    spec.is_visitor = true;
    made.top = co_await nodes.open(std::move(spec));
  }
}

task<void> side_disks::close_below(entry& gone) {
  graph& nodes = gone.top->owner(); // it may have moved to another thread
  co_await gone.disk->release();
  co_await close_unneeded_visitors(nodes);
}

task<void> side_disks::close_unused() {
  const auto guard = co_await mount_.opening.lock();
  co_await close_unused_locked();
}

task<void> side_disks::close_unused_locked() {
  std::vector<entry_pointer> gone;
  std::erase_if(entries_, [&](const auto& known) {
    const bool is_unused = known.second->users.empty();
    if (is_unused)
      gone.push_back(known.second);
    return is_unused;
  });
  co_await close(std::move(gone));
}

task<void> side_disks::close_all_locked() {
  std::vector<entry_pointer> gone;
  for (const auto& [key, e] : entries_)
    gone.push_back(e);
  entries_.clear();
  co_await close(std::move(gone));
}

task<void> side_disks::close(std::vector<entry_pointer> gone) {
  for (const entry_pointer& e : gone) {
    const result<> closed = co_await as_result(run_on(e->top->owner().home(), close_below(*e)));
    if (!closed)
      root_.log.add(0, "close", closed.error());
  }
}

namespace {
task<void> close_later(root_pointer of) {
  co_await shielded(of->beside().close_unused());
}
} // namespace

std::vector<const root*> side_disks::over_configured_nodes() const {
  std::vector<const root*> all;
  for (const auto& [key, e] : entries_)
    if (e->is_configured && e->disk->is_attached())
      all.push_back(&e->disk->attached());
  return all;
}

void side_disks::last_user_left() {
  mount_.closing.spawn(close_later(root_.shared_from_this()));
}

task<void> side_disks::release() {
  for (const auto& [key, e] : entries_)
    co_await e->disk->release();
}

const opener* side_disks::user_of(std::string_view key_prefix) const {
  for (auto at = entries_.lower_bound(key_prefix);
       at != entries_.end() && at->first.starts_with(key_prefix); ++at)
    if (!at->second->users.empty())
      return &at->second->users.front();
  return nullptr;
}

} // namespace bgfs
