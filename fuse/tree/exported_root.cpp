// SPDX-License-Identifier: MIT
#include "fuse/tree/exported_root.h"

#include "config/glance.h"
#include "fuse/tree/mount_state.h"
#include "fuse/tree/passing.h"
#include "graph/io/offload.h"
#include "graph/io/spawn.h"
#include "graph/model/reach.h"

#include <algorithm>
#include <cerrno>

namespace bgfs {

exported_root::exported_root(mount_state& in, export_spec spec)
    : mount_(in), place_(in.nodes), through_kernel_(in, *this), spec_(std::move(spec)),
      beside_(in, *this), snapshots_(in, *this), bitmaps_(in, *this), points_(in, *this) {}

exported_root::~exported_root() {
  BGFS_ASSERT(disk_ == nullptr || !disk_->is_attached(), "a root was not closed");
}

task<void> exported_root::open(u32 pid) {
  while (phase_ == root_phase::opening)
    co_await opened_.wait();
  if (phase_ == root_phase::unopened) {
    phase_ = root_phase::opening;
    opened_.reset();
    result<> outcome = co_await as_result(open_uninterrupted());
    if (phase_ == root_phase::gone) { // a reload has removed it meanwhile
      if (disk_ != nullptr)
        co_await shielded(place_.run([this] { return release_disks(); }));
      opened_.set();
      co_await require_medium();
    }
    phase_ = outcome ? root_phase::open : root_phase::failed;
    mount_.shape++;
    if (!outcome) {
      failure_ = std::move(outcome).error();
      log.add(pid, "open", *failure_);
      error for_mount = *failure_;
      mount_.log.add(pid, "open " + name(), for_mount);
    }
    co_await shielded(announce_opening());
    opened_.set();
  }
  co_await require_medium();
}

void exported_root::announce_closing(const result<>& flushed) const {
  trace<point::root_close>(mount_.home.log(), name(), outcome_of(flushed));
  value data;
  data.set("root", name());
  if (!flushed)
    data.set("reason", flushed.error().message());
  mount_.events.emit(event_name::root_closed, std::move(data));
}

task<void> exported_root::announce_opening() {
  value data;
  data.set("root", name());
  data.set("node-name", spec_.node_name);
  if (failure_) {
    data.set("reason", failure_->message());
    trace<point::root_fail>(mount_.home.log(), name(), failure_->message());
    mount_.events.emit(event_name::root_failed, std::move(data));
    co_return;
  }
  const root_state now = co_await state();
  data.set("state", now.word);
  trace<point::root_open>(mount_.home.log(), name(), now.word);
  mount_.events.emit(event_name::root_opened, std::move(data));
}

task<void> exported_root::retry(u32 pid) {
  if (phase_ == root_phase::opening)
    co_await fail(error_kind::busy, "'{}' is being opened", name());
  if (const root_state now = co_await state(); phase_ == root_phase::open && now.word == "failed")
    co_await fail(error_kind::busy,
                  "'{}' lost a node when a reload failed ({}); reload again to open it anew",
                  name(), now.reason);
  if (phase_ != root_phase::failed)
    co_await fail(error_kind::busy, "'{}' is open; only a failed root is tried again", name());
  phase_ = root_phase::unopened;
  failure_.reset();
  result<> outcome = co_await as_result(open(pid));
  if (!outcome && failure_)
    co_await fail(*failure_); // the reason itself, and its errno
  if (!outcome)
    co_await fail(std::move(outcome).error());
}

// Not cut short by the one who asked: others wait for the outcome.
task<void> exported_root::open_uninterrupted() {
  co_await shielded(open_disk());
}

// Nothing else is opened or reloaded meanwhile, anywhere in the mount.
task<void> exported_root::open_disk() {
  const auto guard = co_await mount_.opening.lock();
  // Since the mount was made, or reloaded, it may have been bound to where the images are (F14).
  for (const std::string& path : mount_.config().host_paths_below(spec_.node_name))
    co_await mount_.require_outside(path);
  graph* const nodes = co_await mount_.graph_of(spec_.iothread);
  place_.move_to(*nodes);
  co_await place_.run([this] { return open_below(); });
  co_await load_time();
}

namespace {
// On the loop of the node.
task<void> close_if_unused(node& n) {
  if (n.parents().empty())
    co_await n.owner().close(n);
}
} // namespace

task<void> exported_root::open_below() {
  node* const top = co_await open_export(place_.nodes(), mount_.config(), spec_);
  result<> attached = co_await as_result(attach_disk(*top));
  if (attached && spec_.passthrough == passthrough_mode::on) {
    attached = co_await as_result(require_passthrough(mount_, spec_, *top));
    if (!attached)
      co_await disk_->release();
  }
  if (attached)
    co_return;
  disk_.reset();
  (void)co_await as_result(close_if_unused(*top));
  co_await fail(std::move(attached).error());
}

disk_policy exported_root::policy() const {
  return {.name = spec_.name,
          .how_to_resize =
              mount_.is_one_file
                  ? fmt::format("set its attribute user.bgfs.size to the new size (setfattr -n "
                                "user.bgfs.size -v SIZE {})",
                                mount_.directory)
                  : fmt::format("write the new size to {}/{}.d/size", mount_.directory, spec_.name),
          .is_writable = spec_.is_writable,
          .is_growable = spec_.is_growable,
          .on_truncate = spec_.on_truncate,
          .cache = spec_.cache};
}

task<void> exported_root::attach_disk(node& top) {
  for (const node* n : nodes_below(top)) {
    const std::string path = n->instance().host_path();
    if (!path.empty())
      co_await mount_.require_outside(path);
  }
  disk_ = std::make_unique<raw_disk>(policy());
  co_await disk_->attach(top, permissions_of(spec_, mount_.config()), this);
}

task<void> exported_root::load_time() {
  image_path_ = disk_->top().host_path();
  const auto time = co_await offload([path = image_path_] { return load_content_time(path); });
  co_await place_.look([&] { disk_->time().begin(time ? *time : mount_.started); });
}

namespace {

std::optional<disk_extent> extent_from_outside(const mount_state& mount, const export_spec& spec) {
  const std::optional<image_glance> seen = glance_at(mount.config(), spec, mount.places.now());
  if (!seen)
    return std::nullopt;
  return disk_extent{.length = seen->length,
                     .allocated = seen->allocated,
                     .modified = load_content_time(seen->path).value_or(mount.started)};
}

} // namespace

task<std::optional<disk_extent>> exported_root::look_from_outside() {
  std::optional<disk_extent> seen =
      co_await offload([this] { return extent_from_outside(mount_, spec_); });
  co_return seen;
}

std::unique_ptr<root>* exported_root::attachment() {
  disk_ = std::make_unique<raw_disk>(policy());
  return disk_->attachment();
}

task<void> exported_root::begin_open() {
  phase_ = root_phase::open;
  opened_.set();
  co_await load_time();
  co_await announce_opening();
}

root* exported_root::attached() const {
  return disk() != nullptr && disk_->is_attached() ? &disk_->attached() : nullptr;
}

std::vector<root*> exported_root::layer_roots() const {
  std::vector<root*> roots;
  for (const auto& [index, disk] : layer_disks_)
    if (disk->is_attached())
      roots.push_back(&disk->attached());
  return roots;
}

task<void> exported_root::go_on(export_spec spec, bool has_new_nodes) {
  if (spec.control != spec_.control)
    forget_names();
  spec_ = std::move(spec);
  if (disk() == nullptr)
    co_return;
  co_await place_.look([this] { disk_->set_policy(policy()); });
  if (has_new_nodes) {
    const std::string path = disk_->top().host_path();
    if (path != image_path_) {
      image_path_ = path;
      // Other bytes, perhaps: who compares times looks again.
      co_await place_.look([this] { disk_->time().changed(); });
    }
    co_await renew_layers();
  }
  tell_kernel();
}

task<raw_disk*> exported_root::attach_layer(unsigned index) {
  raw_disk* const disk = layer_disks_.at(index).get();
  co_await disk->attach(*layers()[index], {permission::consistent_read, permission::all}, nullptr);
  co_return disk;
}

// Handles of layers go on over the new chain; where it has become shorter they are told that theirs
// is gone.
task<void> exported_root::renew_layers() {
  const std::size_t count = layers().size();
  for (auto& [index, disk] : layer_disks_) {
    if (disk->is_attached() || index >= count)
      continue;
    const result<raw_disk*> attached =
        co_await as_result(place_.run([&] { return attach_layer(index); }));
    if (!attached)
      log.add(0, fmt::format("layers/{}", index), attached.error());
  }
}

void exported_root::end() {
  phase_ = root_phase::gone;
  forget_names();
  bitmaps_.let_go_of_all();     // what an edit has released is on the loop of the mount
  place_.move_to(mount_.nodes); // threads may go, handles stay
  announce_closing({});
  for (auto& [index, disk] : layer_disks_)
    layer_disks_gone_.emplace(index, std::move(disk));
  layer_disks_.clear();
}

task<void> exported_root::close() {
  while (phase_ == root_phase::opening)
    co_await opened_.wait();
  if (phase_ != root_phase::open)
    co_return;
  const std::optional<breakpoints_off> passing = co_await let_requests_pass(*this);
  co_await through_kernel_.abandon();
  phase_ = root_phase::closing;
  result<> flushed;
  if (spec_.is_writable)
    flushed = co_await as_result(place_.run([this] { return disk_->flush(); }));
  co_await place_.run([this] { return release_disks(); });
  announce_closing(flushed);
  if (!flushed)
    co_await fail(std::move(flushed).error().add_context(fmt::format("flushing '{}'", name())));
}

task<void> exported_root::give_up(error why) {
  node& top = disk_->top();
  co_await shielded(place_.run([this] { return release_disks(); }));
  phase_ = root_phase::failed;
  layer_disks_gone_.emplace(0, std::move(disk_)); // somebody may have been quick
  failure_ = std::move(why);
  log.add(0, "open", *failure_);
  error for_mount = *failure_;
  mount_.log.add(0, "open " + name(), for_mount);
  (void)co_await as_result(place_.run([&] { return close_if_unused(top); }));
  co_await announce_opening();
}

task<void> exported_root::release_disks() {
  for (auto& [index, disk] : layer_disks_)
    co_await disk->release();
  co_await beside_.release();
  co_await points_.release();
  bitmaps_.let_go_of_all();
  co_await disk_->release();
}

void exported_root::keep_time() const {
  if (spec_.is_writable && disk_ != nullptr && !image_path_.empty() &&
      disk_->time().has_ever_changed())
    keep_content_time(image_path_, disk_->time().shown());
}

result<> exported_root::require_medium() const {
  switch (phase_) {
  case root_phase::open:
  case root_phase::closing:
    return {};
  case root_phase::failed:
    return fail(error{error_kind::not_found,
                      fmt::format("'{}' could not be opened: {}", name(), failure_->message()),
                      ENOMEDIUM});
  case root_phase::gone:
    return fail(
        error{error_kind::not_found, fmt::format("'{}' was removed by a reload", name()), ENODEV});
  case root_phase::unopened:
  case root_phase::opening:
    break;
  }
  return fail(error{error_kind::not_found, fmt::format("'{}' is not open yet", name()), ENOMEDIUM});
}

std::vector<node*> exported_root::layers() const {
  std::vector<node*> found;
  if (disk() == nullptr)
    return found;
  for (node* n = disk()->top().skip_filters(); n != nullptr;) {
    found.push_back(n);
    n = n->backing() != nullptr ? n->backing()->child().skip_filters() : nullptr;
  }
  return found;
}

std::vector<node*> exported_root::nodes() const {
  return disk() != nullptr ? nodes_below(disk()->top()) : std::vector<node*>();
}

bool exported_root::leads_to(const node& n) const {
  const std::vector<node*> all = nodes();
  return std::ranges::find(all, &n) != all.end();
}

task<raw_disk*> exported_root::layer_disk(unsigned index) {
  co_await require_medium();
  const auto guard = co_await mount_.opening.lock();
  const auto chain = layers();
  if (index >= chain.size())
    co_await fail(error_kind::not_found, "'{}' has {} layers", name(), chain.size());
  if (const auto known = layer_disks_.find(index);
      known != layer_disks_.end() && known->second->is_attached())
    co_return known->second.get();
  auto& kept = layer_disks_[index];
  if (kept != nullptr) // handles may still refer to one whose layer was gone for a while
    layer_disks_gone_.emplace(index, std::move(kept));
  kept = std::make_unique<raw_disk>(disk_policy{
      .name = fmt::format("{}.d/layers/{}/disk", name(), index), .is_only_a_view = true});
  result<raw_disk*> attached = co_await as_result(place_.run([&] { return attach_layer(index); }));
  if (!attached) {
    layer_disks_.erase(index);
    co_return fail(std::move(attached).error());
  }
  co_await place_.look([&] { (*attached)->time().begin(disk_->time().shown()); });
  co_return *attached;
}

const opener* exported_root::first_opener() const {
  if (!openers.empty())
    return &openers.front();
  for (const auto& [number, view] : open_views) {
    const auto found = std::ranges::find(view.users, true, &opener::shows_live);
    if (found != view.users.end())
      return &*found;
  }
  return nullptr;
}

task<void> exported_root::content_replaced() {
  co_await place_.look([this] { disk_->content_replaced(); });
  tell_other_views({});
  tell_kernel();
}

task<void> exported_root::layers_changed() {
  co_await place_.look([this] { disk_->space_changed(); });
  tell_other_views({});
  tell_kernel();
}

// A write of who grows the disk waits for no answer of the kernel.
void exported_root::resized() {
  if (&place_.home() == &mount_.home) {
    tell_kernel();
    return;
  }
  struct news : run_item {
    root_pointer about;
  };
  auto* const item = new news;
  item->about = shared_from_this();
  item->run = [](run_item& self) {
    const std::unique_ptr<news> arrived(static_cast<news*>(&self));
    arrived->about->tell_kernel();
  };
  mount_.home.post_remote(*item);
}

// Both sides learn of each other: who writes has not been asked when somebody else maps. What none
// of them can write to does not count.
task<void> exported_root::meet_overlapping() {
  const u64 shape = mount_.shape;
  if (overlapping_as_of_ == shape || attached() == nullptr)
    co_return;
  const std::vector<node*> shared = co_await place_.look([this] {
    std::vector<node*> found = nodes();
    std::erase_if(found,
                  [](const node* n) { return n->is_read_only() || n->parents().size() < 2; });
    return found;
  });
  overlapping_.clear();
  overlapping_as_of_ = shape;
  if (shared.empty())
    co_return;
  const auto is_shared = [&](node* n) { return std::ranges::find(shared, n) != shared.end(); };
  for (const root_pointer& r : mount_.roots) {
    if (r.get() == this || r->attached() == nullptr || std::ranges::none_of(r->nodes(), is_shared))
      continue;
    overlapping_.emplace_back(r);
    const auto is_known = [this](const auto& known) { return known.lock().get() == this; };
    if (std::ranges::none_of(r->overlapping_, is_known))
      r->overlapping_.push_back(weak_from_this());
  }
}

bool exported_root::is_watched() const {
  return !open_views.empty() || std::ranges::any_of(overlapping_, [](const auto& other) {
    const root_pointer r = other.lock();
    return r != nullptr && (!r->openers.empty() || !r->open_views.empty());
  });
}

task<void> exported_root::settle_leased_writes() {
  std::vector<root_pointer> all = {shared_from_this()};
  for (const auto& other : overlapping_)
    if (root_pointer r = other.lock())
      all.push_back(std::move(r));
  for (const root_pointer& r : all) {
    const bool is_watched = r->is_watched();
    if (raw_disk* const disk = r->disk(); disk != nullptr && disk->tells_of_writes() != is_watched)
      co_await r->place().run([&] { return disk->tell_of_writes(is_watched); });
  }
}

void exported_root::forget_shared_attributes() {
  if (mount_.notifications == nullptr)
    return;
  const auto forget = [this](exported_root& r) {
    r.news_for_kernel_++;
    if (r.inode != 0)
      mount_.notifications->forget_attributes(r.inode);
  };
  forget(*this);
  for (const auto& other : overlapping_)
    if (const root_pointer r = other.lock())
      forget(*r);
}

task<void> exported_root::file_closed() {
  co_await through_kernel_.dismiss();
  co_await settle_leased_writes();
}

void exported_root::tell_other_views(byte_range changed, u64 from) {
  parts.changed(changed);
  for (const auto& other : overlapping_)
    if (const root_pointer r = other.lock())
      r->parts.changed({}); // its offsets may be others
  if (mount_.notifications == nullptr)
    return;
  if (from != 0 && inode != 0)
    mount_.notifications->invalidate(inode, changed);
  if (!is_watched())
    return;
  const auto tell_views = [&](const exported_root& r) {
    for (const auto& [number, view] : r.open_views) {
      const byte_range part = changed.intersection(view.place);
      const bool is_touched = changed.is_empty() || !part.is_empty();
      if (number != from && is_touched)
        mount_.notifications->invalidate(
            number, changed.is_empty() ? changed
                                       : byte_range{part.offset - view.place.offset, part.length});
    }
  };
  tell_views(*this);
  for (const auto& other : overlapping_) {
    const root_pointer r = other.lock();
    if (r == nullptr)
      continue;
    tell_views(*r);
    if (!r->openers.empty())
      mount_.notifications->invalidate(r->inode, changed);
  }
}

bool exported_root::has_partition_writers() const {
  return std::ranges::any_of(openers,
                             [](const opener& o) { return o.partition != 0 && o.is_writing; });
}

result<> exported_root::check_exclusive(bool is_partition) const {
  if (!spec_.is_exclusive)
    return {};
  for (const opener& o : openers)
    if (o.is_writing && (o.partition != 0) != is_partition)
      return fail(error_kind::busy,
                  "{} of '{}' cannot be opened for writing while process {} ({}) has {} open for "
                  "writing: its export says 'exclusive: true'",
                  is_partition ? "a partition" : "the raw file", name(), o.pid, o.command,
                  o.partition != 0 ? fmt::format("partition {}", o.partition) : "the raw file");
  return {};
}

// The attributes first: that waits for nobody.
void exported_root::tell_kernel() {
  parts.changed({}); // another length, or other bytes
  news_for_kernel_++;
  if (mount_.notifications == nullptr)
    return;
  if (directory_inode != 0)
    mount_.notifications->forget_attributes(directory_inode);
  if (inode == 0)
    return;
  mount_.notifications->forget_attributes(inode);
  mount_.notifications->invalidate(inode, {0, 0});
}

void exported_root::forget_names() {
  news_for_kernel_++;
  // A mount of one file has no names; looking for one the kernel would lock the file, as who sets
  // an attribute of it does who waits for this.
  if (mount_.notifications == nullptr || mount_.is_one_file)
    return;
  mount_.notifications->forget_name(FUSE_ROOT_ID, name());
  mount_.notifications->forget_name(FUSE_ROOT_ID, name() + ".d");
}

task<root_state> exported_root::state() {
  switch (phase_) {
  case root_phase::unopened:
    co_return root_state{"opening", "it is opened on demand"};
  case root_phase::opening:
    co_return root_state{"opening", {}};
  case root_phase::failed:
    co_return root_state{"failed", failure_->message()};
  case root_phase::closing:
  case root_phase::gone:
    co_return root_state{"closing", {}};
  case root_phase::open:
    break;
  }
  const bool was_repairing = is_repairing; // it may be over when its loop has the time to answer
  root_state now = co_await place_.run([this] { return state_of_nodes(); });
  if (was_repairing && (now.word == "ok" || now.word == "full"))
    co_return root_state{"repairing", "space that nobody uses is given back; requests wait"};
  co_return now;
}

// The worst comes first.
task<root_state> exported_root::state_of_nodes() {
  const std::vector<node*> all = nodes();
  for (const node* n : all)
    if (n->loss() != nullptr)
      co_return root_state{"failed", n->loss()->message()};
  if (std::ranges::any_of(all, &node::is_deactivated))
    co_return root_state{
        "stopped", "its image was given up (nodes/NAME/active); write 1 there to take it back"};
  if (std::ranges::any_of(all, &node::is_broken))
    co_return root_state{
        "corrupt",
        "what is on disk contradicts itself, see last-error; nothing more is written to it"};
  if (disk_->is_full())
    co_return root_state{
        "full",
        "the last write found no space under the image; writes succeed again when there is some"};
  co_return root_state{spec_.is_writable ? "ok" : "read-only", {}};
}

mode_t exported_root::full_mode() const {
  return spec_.mode.value_or(spec_.is_writable ? 0600 : 0400) & 07777;
}

mode_t exported_root::mode() const {
  return phase_ == root_phase::failed ? 0 : full_mode();
}

mode_t exported_root::view_mode(bool is_writable_view) const {
  const mode_t readable = full_mode() & 0444;
  return is_writable_view ? readable | (0200 & (readable >> 1)) | (full_mode() & 0222) : readable;
}

mode_t exported_root::directory_mode() const {
  const mode_t readable = full_mode() & 0444;
  return readable | (readable >> 2);
}

uid_t exported_root::owner() const {
  return spec_.owner.value_or(mount_.owner);
}
gid_t exported_root::group() const {
  return spec_.group.value_or(mount_.group);
}

} // namespace bgfs
