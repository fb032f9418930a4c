// SPDX-License-Identifier: MIT
#include "fuse/tree/exported_root.h"

#include "fuse/tree/mount_state.h"
#include "graph/io/offload.h"
#include "graph/io/spawn.h"

#include <algorithm>
#include <cerrno>

namespace bgfs {
namespace {

void collect(node& n, std::vector<node*>& into) {
  if (std::ranges::find(into, &n) != into.end())
    return;
  into.push_back(&n);
  for (const auto& e : n.children())
    collect(e->child(), into);
}

} // namespace

exported_root::exported_root(mount_state& in, export_spec spec)
    : mount_(in), spec_(std::move(spec)) {}

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
    phase_ = outcome ? root_phase::open : root_phase::failed;
    if (!outcome) {
      failure_ = std::move(outcome).error();
      log.add(pid, "open", *failure_);
      error for_mount = *failure_;
      mount_.log.add(pid, "open " + name(), for_mount);
    }
    announce_opening();
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

void exported_root::announce_opening() const {
  value data;
  data.set("root", name());
  data.set("node-name", spec_.node_name);
  if (failure_) {
    data.set("reason", failure_->message());
    trace<point::root_fail>(mount_.home.log(), name(), failure_->message());
    mount_.events.emit(event_name::root_failed, std::move(data));
    return;
  }
  data.set("state", state_word());
  trace<point::root_open>(mount_.home.log(), name(), state_word());
  mount_.events.emit(event_name::root_opened, std::move(data));
}

task<void> exported_root::retry(u32 pid) {
  if (phase_ == root_phase::opening)
    co_await fail(error_kind::busy, "'{}' is being opened", name());
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

namespace {
task<node*> open_checked(mount_state& mount, const export_spec& spec) {
  const auto guard = co_await mount.opening.lock();
  node* const top = co_await open_export(mount.nodes, mount.config(), spec);
  co_return top;
}
} // namespace

// Not cut short by the one who asked: others wait for the outcome.
task<void> exported_root::open_uninterrupted() {
  co_await shielded(open_disk());
}

task<void> exported_root::open_disk() {
  node* const top = co_await open_checked(mount_, spec_);
  result<> attached = co_await as_result(attach_disk(*top));
  if (attached)
    co_return;
  disk_.reset();
  if (top->parents().empty())
    (void)co_await as_result(mount_.nodes.close(*top));
  co_await fail(std::move(attached).error());
}

disk_policy exported_root::policy() const {
  return {.name = spec_.name,
          .path = mount_.directory + "/" + spec_.name,
          .is_writable = spec_.is_writable,
          .is_growable = spec_.is_growable,
          .on_truncate = spec_.on_truncate,
          .cache = spec_.cache};
}

task<void> exported_root::attach_disk(node& top) {
  std::vector<node*> below;
  collect(top, below);
  for (const node* n : below) {
    const std::string path = n->instance().host_path();
    if (!path.empty())
      co_await mount_.require_outside(path);
  }
  disk_ = std::make_unique<raw_disk>(mount_.nodes, policy());
  co_await disk_->attach(top, permissions_of(spec_, mount_.config()), this);
  co_await load_time();
}

task<void> exported_root::load_time() {
  image_path_ = disk_->top().host_path();
  const auto time = co_await offload([path = image_path_] { return load_content_time(path); });
  disk_->time().begin(time ? *time : mount_.started);
}

std::unique_ptr<root>* exported_root::attachment() {
  disk_ = std::make_unique<raw_disk>(mount_.nodes, policy());
  return disk_->attachment();
}

task<void> exported_root::begin_open() {
  phase_ = root_phase::open;
  opened_.set();
  co_await load_time();
  announce_opening();
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
  spec_ = std::move(spec);
  if (disk() == nullptr)
    co_return;
  disk_->set_policy(policy());
  if (has_new_nodes) {
    const std::string path = disk_->top().host_path();
    if (path != image_path_) {
      image_path_ = path;
      disk_->time().changed(); // other bytes, perhaps: who compares times looks again
    }
    co_await renew_layers();
  }
  resized();
}

// Handles of layers go on over the new chain; where it has become shorter they are told that theirs
// is gone.
task<void> exported_root::renew_layers() {
  const auto chain = layers();
  for (auto& [index, disk] : layer_disks_) {
    if (disk->is_attached() || index >= chain.size())
      continue;
    const result<> attached = co_await as_result(
        disk->attach(*chain[index], {permission::consistent_read, permission::all}, nullptr));
    if (!attached)
      log.add(0, fmt::format("layers/{}", index), attached.error());
  }
}

void exported_root::end() {
  phase_ = root_phase::gone;
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
  phase_ = root_phase::closing;
  result<> flushed;
  if (spec_.is_writable)
    flushed = co_await as_result(disk_->flush());
  for (auto& [index, disk] : layer_disks_)
    co_await disk->release();
  co_await disk_->release();
  announce_closing(flushed);
  if (!flushed)
    co_await fail(std::move(flushed).error().add_context(fmt::format("flushing '{}'", name())));
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
  std::vector<node*> found;
  if (disk() != nullptr)
    collect(disk()->top(), found);
  return found;
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
  auto disk = std::make_unique<raw_disk>(
      mount_.nodes, disk_policy{.name = fmt::format("{}.d/layers/{}/disk", name(), index)});
  co_await disk->attach(*chain[index], {permission::consistent_read, permission::all}, nullptr);
  disk->time().begin(disk_->time().shown());
  auto& kept = layer_disks_[index];
  if (kept != nullptr) // handles may still refer to one whose layer was gone for a while
    layer_disks_gone_.emplace(index, std::move(kept));
  kept = std::move(disk);
  co_return kept.get();
}

void exported_root::resized() {
  if (mount_.notifications != nullptr && inode != 0)
    mount_.notifications->invalidate(inode, {0, 0});
}

std::string_view exported_root::state_word() const {
  switch (phase_) {
  case root_phase::unopened:
  case root_phase::opening:
    return "opening";
  case root_phase::failed:
    return "failed";
  case root_phase::closing:
  case root_phase::gone:
    return "closing";
  case root_phase::open:
    break;
  }
  if (std::ranges::any_of(nodes(), [](const node* n) { return n->loss() != nullptr; }))
    return "failed";
  if (std::ranges::any_of(nodes(), [](const node* n) { return n->is_deactivated(); }))
    return "stopped";
  if (std::ranges::any_of(nodes(), [](const node* n) { return n->is_broken(); }))
    return "corrupt";
  if (disk_->is_full())
    return "full";
  return spec_.is_writable ? "ok" : "read-only";
}

std::string exported_root::state_reason() const {
  if (failure_)
    return failure_->message();
  const std::string_view word = state_word();
  for (const node* n : nodes())
    if (n->loss() != nullptr)
      return n->loss()->message();
  if (word == "stopped")
    return "its image was given up (nodes/NAME/active); write 1 there to take it back";
  if (word == "corrupt")
    return "what is on disk contradicts itself, see last-error; nothing more is written to it";
  if (word == "full")
    return "the last write found no space under the image; writes succeed again when there is some";
  if (word == "opening" && phase_ == root_phase::unopened)
    return "it is opened on demand";
  return {};
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
