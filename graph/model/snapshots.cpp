// SPDX-License-Identifier: MIT
// What is done to a node's internal snapshots. Each change is made by a root of its own, which
// takes the permissions that the change needs and so finds out who does not share them, and while
// nothing runs above the node: no visit of a lease is inside, no request is half done.
#include "graph/io/spawn.h"
#include "graph/io/with.h"
#include "graph/model/graph.h"

namespace bgfs {

result<node*> find_snapshottable(node& top) {
  node* const image = top.skip_filters();
  if (image->as_snapshottable() == nullptr)
    return fail(error_kind::unsupported,
                "{} cannot have internal snapshots: driver '{}' keeps none; use a format that "
                "does, such as qcow2",
                image->describe(), image->type().name);
  return image;
}

struct graph::snapshot_change {
  enum class kind : u8 { create, remove, rename, revert };
  kind what = kind::create;
  new_snapshot wanted;   // create
  snapshot_key which;    // the others
  std::string name = {}; // rename

  [[nodiscard]] std::string attempt() const {
    switch (what) {
    case kind::create:
      return fmt::format("creating snapshot '{}'", wanted.name);
    case kind::remove:
      return "deleting " + describe(which);
    case kind::rename:
      return "renaming " + describe(which);
    case kind::revert:
      return "reverting to " + describe(which);
    }
    return {};
  }
  [[nodiscard]] node_operation operation() const {
    return what == kind::remove ? node_operation::internal_snapshot_delete
                                : node_operation::internal_snapshot;
  }
  // Only reverting changes what is read.
  [[nodiscard]] permissions needed() const {
    using namespace permission;
    constexpr permission_set unchanged = consistent_read | write_unchanged;
    constexpr permission_set changed = consistent_read | write | resize;
    return {what == kind::revert ? changed : unchanged, all};
  }
};

result<std::vector<snapshot_info>> graph::snapshots(node& n) const {
  BGFS_TRY(const node* image, find_snapshottable(n));
  BGFS_CHECK(image->check_active());
  return image->snapshottable_->snapshots();
}

// Parents above may show other bytes now, of another length.
task<void> graph::revert_drained(node& image, snapshot_key which) {
  result<> done = co_await as_result(image.snapshottable_->revert_to_snapshot(std::move(which)));
  // Even if it failed it may have gone all of the way but the end.
  image.write_generation_++;
  image.forget_status();
  image.mapping_changed({0, device_length_max});
  image.length_changed();
  std::vector<node*> above = {&image};
  for (std::size_t i = 0; i < above.size(); i++) {
    for (const edge* e : above[i]->parents())
      if (e->parent() != nullptr && e->has_role(role::filtered))
        above.push_back(e->parent());
    for (root* r : roots_)
      if (&r->top() == above[i] && r->observer_ != nullptr)
        r->observer_->medium_changed();
  }
  co_await std::move(done);
}

// One that failed may have gone a part of its way.
struct graph::snapshots_touched {
  node& image;
  ~snapshots_touched() { image.snapshots_version_++; }
};

task<std::string> graph::change_drained(node& image, const snapshot_change& change) {
  using kind = snapshot_change::kind;
  const snapshots_touched touched{image};
  snapshottable& face = *image.snapshottable_;
  std::string id;
  switch (change.what) {
  case kind::create:
    id = co_await shielded(face.create_snapshot(change.wanted));
    image.write_generation_++;
    break;
  case kind::remove:
    co_await shielded(face.delete_snapshot(change.which));
    break;
  case kind::rename:
    co_await shielded(face.rename_snapshot(change.which, change.name));
    break;
  case kind::revert:
    co_await shielded(revert_drained(image, change.which));
    break;
  }
  co_return id;
}

task<std::string> graph::change_with_root(node& image, const snapshot_change& change) {
  const async_mutex::guard editing = co_await edits_.lock();
  co_await image.check_writable(); // an edit may have come first
  co_await image.check_operation(change.operation());
  if (change.what == snapshot_change::kind::revert && !image.bitmaps().is_empty())
    co_await fail(
        error_kind::busy,
        "{} has dirty bitmaps ('{}'), which would not tell what reverting changes; remove "
        "them first",
        image.describe(), image.bitmaps().all().front()->name());
  std::string id =
      co_await with(drain(image), [&](drained&) { return change_drained(image, change); });
  co_return id;
}

task<std::string> graph::change_snapshots(node& top, snapshot_change change) {
  node* const image = co_await find_snapshottable(top);
  co_await image->check_writable();
  std::string id = co_await context(with(attach(change.attempt(), *image, change.needed()),
                                         [&](root&) { return change_with_root(*image, change); }),
                                    "{}", change.attempt());
  co_return id;
}

task<std::string> graph::create_snapshot(node& n, new_snapshot wanted) {
  co_await check_snapshot_name(wanted.name);
  std::string id = co_await change_snapshots(
      n, {.what = snapshot_change::kind::create, .wanted = std::move(wanted), .which = {}});
  co_return id;
}

task<void> graph::delete_snapshot(node& n, snapshot_key which) {
  (void)co_await change_snapshots(
      n, {.what = snapshot_change::kind::remove, .wanted = {}, .which = std::move(which)});
}

task<void> graph::rename_snapshot(node& n, snapshot_key which, std::string name) {
  co_await check_snapshot_name(name);
  (void)co_await change_snapshots(n, {.what = snapshot_change::kind::rename,
                                      .wanted = {},
                                      .which = std::move(which),
                                      .name = std::move(name)});
}

task<std::string> graph::create_snapshot_held(node& image, new_snapshot wanted) {
  const snapshot_change change{
      .what = snapshot_change::kind::create, .wanted = std::move(wanted), .which = {}};
  std::string id = co_await change_drained(image, change);
  co_return id;
}

task<void> graph::delete_snapshot_held(node& image, std::string id) {
  const snapshot_change change{.what = snapshot_change::kind::remove,
                               .wanted = {},
                               .which = {.id = std::move(id), .name = {}}};
  (void)co_await change_drained(image, change);
}

task<void> graph::revert_to_snapshot(node& n, snapshot_key which) {
  (void)co_await change_snapshots(
      n, {.what = snapshot_change::kind::revert, .wanted = {}, .which = std::move(which)});
}

task<void> graph::revert_held(node& n, snapshot_key which) {
  node* const image = co_await find_snapshottable(n);
  const snapshot_change change{
      .what = snapshot_change::kind::revert, .wanted = {}, .which = std::move(which)};
  (void)co_await context(change_with_root(*image, change), "{}", change.attempt());
}

// The VM state lies behind the disk, where no other request is: an empty range is in nobody's way,
// and keeps what is freed meanwhile from being used again.
result<> node::check_vmstate(byte_range range) const {
  BGFS_CHECK(check_active());
  if (vmstate_store_ == nullptr)
    return fail(error_kind::unsupported, "{} cannot hold the state of a machine", describe());
  if (range.length > request_length_max || range.offset > device_length_max - range.length)
    return fail(error_kind::out_of_range,
                "the state of a machine has no {} bytes at {:#x} of {}; at most {} at once, up to "
                "{:#x}",
                range.length, range.offset, describe(), request_length_max, device_length_max);
  return {};
}

task<void> node::read_vmstate(u64 position, std::span<std::byte> bytes) {
  co_await check_vmstate({position, bytes.size()});
  tracked_request request(requests_, request_type::read, {}, owner_->home().now());
  co_await vmstate_store_->read_vmstate(position, bytes);
}

task<void> node::write_vmstate(u64 position, std::span<const std::byte> bytes) {
  co_await check_writable();
  co_await check_vmstate({position, bytes.size()});
  tracked_request request(requests_, request_type::write, {}, owner_->home().now());
  requests_.enter_driver(request);
  result<> outcome = co_await as_result(vmstate_store_->write_vmstate(position, bytes));
  write_generation_++;
  co_await std::move(outcome);
}

} // namespace bgfs
