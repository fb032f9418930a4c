// SPDX-License-Identifier: MIT
#include "drivers/format/internal_snapshot/internal_snapshot.h"

#include "graph/model/graph.h"

namespace bgfs {
namespace {

constexpr option option_list[] = {
    {.name = "snapshot", .help = "the snapshot's id or, if none has that, its name"},
    {.name = "snapshot-id", .help = "the snapshot's id", .is_strong = true},
    {.name = "snapshot-name", .help = "the snapshot's name", .is_strong = true},
    {.name = "vm-state",
     .type = option_type::boolean,
     .help = "the state of the machine that the snapshot holds, instead of its disk",
     .default_text = "false",
     .is_strong = true},
};
constexpr option_schema internal_snapshot_options{"driver 'internal-snapshot'", option_list};

// The image names this disk and holds what it shows, but not at the same places: neither its limits
// nor its changes are ours.
constexpr child_slot slots[] = {{"file", role::primary}, {"backing", role::backing, false}};

// Keeps the image's driver and backing node as they are. A filter may be put over the image: the
// edge stays at the node.
class image_hold {
public:
  image_hold(node& image, std::string reason)
      : blockers_(image.blockers()),
        token_(blockers_.add(bit(node_operation::change), std::move(reason))) {}
  ~image_hold() { blockers_.remove(token_); }
  image_hold(const image_hold&) = delete;
  image_hold& operator=(const image_hold&) = delete;

private:
  operation_blockers& blockers_;
  operation_blockers::token token_;
};

class internal_snapshot_driver final : public driver, public readable, public mappable {
public:
  internal_snapshot_driver(const node& self, node& image, std::unique_ptr<snapshot_view> view)
      : image_(image), view_(std::move(view)),
        hold_(std::in_place, image,
              fmt::format("its {} is open as node '{}'",
                          describe(snapshot_key{.id = {}, .name = view_->info().name}),
                          self.name())) {}

  [[nodiscard]] u64 length() const override { return view_->info().disk_length; }
  task<void> close() override {
    hold_.reset();
    view_.reset();
    co_return;
  }
  // It is stored as the live disk is: encrypted images are read by whole sectors.
  void refine_limits(block_limits& limits) const override {
    limits.request_alignment = image_.limits().request_alignment;
  }
  [[nodiscard]] driver_info info() const override {
    const driver_info of_image = image_.instance().info();
    return {.cluster_size = of_image.cluster_size, .subcluster_size = of_image.subcluster_size};
  }
  [[nodiscard]] const node* shares_backing_with() const override { return &image_; }
  [[nodiscard]] std::optional<image_reference> backing_reference() const override {
    return image_.instance().backing_reference();
  }
  // The snapshot stays as it is, so that anybody may do anything to the live disk.
  [[nodiscard]] permissions child_permissions(const edge& child,
                                              permissions parents) const override {
    if (child.has_role(role::backing))
      return driver::child_permissions(child, parents);
    return {permission::consistent_read, permission::all};
  }

  task<void> read(u64 offset, std::span<std::byte> bytes) override {
    return view_->read(offset, bytes);
  }
  task<extent> map(byte_range range) override { return view_->map(range); }
  [[nodiscard]] std::optional<extent> try_map(byte_range range) override {
    return view_->try_map(range);
  }

private:
  node& image_;
  std::unique_ptr<snapshot_view> view_;
  std::optional<image_hold> hold_;
};

// The state of a machine that a snapshot keeps beside the disk: bytes that lie nowhere else.
class vm_state_driver final : public driver, public readable {
public:
  vm_state_driver(const node& self, node& image, std::unique_ptr<snapshot_view> view)
      : view_(std::move(view)),
        hold_(std::in_place, image,
              fmt::format("the VM state of its {} is open as node '{}'",
                          describe(snapshot_key{.id = {}, .name = view_->info().name}),
                          self.name())) {}

  [[nodiscard]] u64 length() const override { return view_->info().vm_state_length; }
  task<void> close() override {
    hold_.reset();
    view_.reset();
    co_return;
  }
  [[nodiscard]] permissions child_permissions(const edge&, permissions) const override {
    return {permission::consistent_read, permission::all};
  }
  task<void> read(u64 offset, std::span<std::byte> bytes) override {
    return view_->read_vmstate(offset, bytes);
  }

private:
  std::unique_ptr<snapshot_view> view_;
  std::optional<image_hold> hold_;
};

// `snapshot` is what the peer's tools take: an id comes before a name.
result<snapshot_key> find_key(const options& given, const snapshottable& image) {
  snapshot_key key;
  if (given.is_set("snapshot-id"))
    key.id = given.text("snapshot-id");
  if (given.is_set("snapshot-name"))
    key.name = given.text("snapshot-name");
  const bool is_exact = key.id || key.name;
  if (given.is_set("snapshot") == is_exact)
    return fail(error_kind::invalid_argument,
                "which snapshot is meant is said by 'snapshot', or by 'snapshot-id', "
                "'snapshot-name' or both");
  if (is_exact)
    return key;
  const std::string& either = given.text("snapshot");
  if (find_snapshot(image.snapshots(), {.id = either, .name = {}}))
    return snapshot_key{.id = either, .name = {}};
  return snapshot_key{.id = {}, .name = either};
}

task<std::unique_ptr<driver>> open_internal_snapshot(open_request request) {
  node& image = request.children[0]->child();
  request.children[0]->stay_at_node();
  snapshottable* const face = image.as_snapshottable();
  if (face == nullptr)
    co_return fail(error_kind::unsupported,
                   "{} cannot have internal snapshots: driver '{}' keeps none", image.describe(),
                   image.type().name);
  if (!request.is_read_only)
    co_return fail(error_kind::permission,
                   "a snapshot cannot be written to; open it with 'read-only: true'");
  snapshot_key key = co_await find_key(request.given, *face);
  std::unique_ptr<snapshot_view> view =
      co_await face->open_snapshot(std::move(key), fmt::format("node '{}'", request.self.name()));
  if (request.given.flag("vm-state"))
    co_return std::make_unique<vm_state_driver>(request.self, image, std::move(view));
  co_return std::make_unique<internal_snapshot_driver>(request.self, image, std::move(view));
}

} // namespace

const driver_type internal_snapshot_driver_type{
    .name = "internal-snapshot",
    .kind = driver_kind::format,
    .summary = "one internal snapshot of an open image, read beside the live disk",
    .children = slots,
    .open_options = &internal_snapshot_options,
    .supports_backing = true,
    .open = open_internal_snapshot,
};

} // namespace bgfs
