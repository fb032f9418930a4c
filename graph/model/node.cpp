// SPDX-License-Identifier: MIT
#include "graph/model/node.h"

#include "graph/model/graph.h"
#include "graph/model/lease.h"

namespace bgfs {

node::node(graph& owner, std::string name, const driver_type& type, options given,
           node_options generic)
    : owner_(&owner), name_(std::move(name)), type_(&type), given_(std::move(given)),
      generic_(generic), requested_(generic) {
  requests_.trace_as(owner_->home().log(), name_);
}

node::~node() {
  BGFS_ASSERT(parents_.empty(), "M1: a node outlives its parents");
  BGFS_ASSERT(requests_.in_flight() == 0, "M2: a node outlives its requests");
}

void node::find_faces() {
  driver* d = driver_.get();
  readable_ = dynamic_cast<readable*>(d);
  direct_file_ = dynamic_cast<direct_file*>(d);
  writable_ = dynamic_cast<writable*>(d);
  mappable_ = dynamic_cast<mappable*>(d);
  zeroable_ = dynamic_cast<zeroable*>(d);
  discardable_ = dynamic_cast<discardable*>(d);
  copyable_ = dynamic_cast<copyable*>(d);
  flushable_ = dynamic_cast<flushable*>(d);
  resizable_ = dynamic_cast<resizable*>(d);
  permission_holder_ = dynamic_cast<permission_holder*>(d);
  reopenable_ = dynamic_cast<reopenable*>(d);
  backing_writer_ = dynamic_cast<backing_writer*>(d);
  checkable_ = dynamic_cast<checkable*>(d);
  snapshottable_ = dynamic_cast<snapshottable*>(d);
  vmstate_store_ = dynamic_cast<vmstate_store*>(d);
  bitmap_store_ = dynamic_cast<bitmap_store*>(d);
  amendable_ = dynamic_cast<amendable*>(d);
  frozen_disk_ = dynamic_cast<frozen_disk*>(d);
  emptiable_ = dynamic_cast<emptiable*>(d);
  debuggable_ = dynamic_cast<debuggable*>(d);
  quiescable_ = dynamic_cast<quiescable*>(d);
  transparent_ = dynamic_cast<transparent*>(d);
  child_keeper_ = dynamic_cast<child_keeper*>(d);
  compressible_ = dynamic_cast<compressible*>(d);
  prefetcher_ = dynamic_cast<prefetcher*>(d);
  buffer_registrar_ = dynamic_cast<buffer_registrar*>(d);
  cluster_size_ = d->info().cluster_size;
  snapshots_version_++;
  forget_status(); // of another driver, perhaps
}

void node::refresh_limits() {
  block_limits limits;
  if (!children_.empty()) // they say; what none of them does is settled below
    limits.min_memory_alignment = limits.opt_memory_alignment = limits.max_vectors = 0;
  for (const auto& e : children_)
    if (e->has_role(role::data | role::filtered | role::backing))
      merge_child_limits(limits, e->child().limits(), e->has_role(role::filtered));
  settle_limits(limits); // drivers refine what is whole
  driver_->refine_limits(limits);
  BGFS_ASSERT(is_power_of_two(limits.request_alignment));
  BGFS_ASSERT(limits.request_alignment <= alignment_max);
  settle_limits(limits);
  if (limits == limits_)
    return;
  limits_ = limits;
  for (edge* e : parents_)
    if (e->parent() != nullptr && e->parent()->is_active())
      e->parent()->refresh_limits();
}

void node::refresh_length() {
  length_ = driver_->length();
  if (!bitmaps_.is_empty())
    bitmaps_.resize(length_);
}

edge* node::child(std::string_view slot) const {
  for (const auto& e : children_)
    if (e->name() == slot)
      return e.get();
  return nullptr;
}

edge* node::filtered_child() const {
  for (const auto& e : children_)
    if (e->has_role(role::filtered))
      return e.get();
  return nullptr;
}

node* node::next_in_chain() const {
  if (backing_ != nullptr)
    return &backing_->child();
  if (edge* filtered = filtered_child())
    return &filtered->child();
  return nullptr;
}

node* node::skip_filters() {
  node* n = this;
  while (n->is_filter() && n->filtered_child() != nullptr)
    n = &n->filtered_child()->child();
  return n;
}

u64 node::copy_unit() const {
  const edge* below = is_filter() ? filtered_child() : nullptr;
  const u64 cluster =
      cluster_size_ == 0 && below != nullptr ? below->child().copy_unit() : cluster_size_;
  return std::max<u64>(cluster, limits_.request_alignment);
}

const node* node::skip_filters() const {
  return const_cast<node*>(this)->skip_filters();
}

permissions node::cumulative_permissions() const {
  permissions p{0, permission::all};
  for (const edge* e : parents_) {
    p.used |= e->granted().used;
    p.shared &= e->granted().shared;
  }
  return p;
}

std::vector<operation_blockers::blocker> node::all_blockers() const {
  std::vector<operation_blockers::blocker> all(blockers_.all().begin(), blockers_.all().end());
  for (const edge* e : parents_)
    if (e->has_role(role::backing))
      all.push_back({all_node_operations & ~allowed_as_backing,
                     fmt::format("it is the backing of {}", e->parent()->describe())});
  return all;
}

result<> node::check_operation(node_operation what) const {
  for (const operation_blockers::blocker& b : all_blockers())
    if ((b.forbidden & bit(what)) != 0)
      return fail(error_kind::busy, "{} cannot be used for '{}' now: {}", describe(),
                  to_string(what), b.reason);
  return {};
}

result<> node::check_may_change() const {
  if (const std::string* reason = blockers_.find(node_operation::change))
    return fail(error_kind::busy, "{} cannot be changed now: {}", describe(), *reason);
  return {};
}

std::string node::host_path() const {
  if (driver_) {
    std::string path = driver_->host_path();
    if (!path.empty())
      return path;
  }
  return primary_ != nullptr ? primary_->child().host_path() : std::string();
}

std::string node::describe() const {
  const std::string path = host_path();
  if (path.empty())
    return fmt::format("node '{}' ({})", name_, type_->name);
  return fmt::format("node '{}' ({}, {})", name_, type_->name, path);
}

namespace {
constexpr byte_range everything{0, device_length_max};
} // namespace

void node::mapping_changed(byte_range range) {
  for (const edge* e : parents_) {
    if (e->parent() == nullptr) {
      if (lease* const l = e->root_lease())
        l->retire(range);
      continue;
    }
    // What the parent shows is something else: a snapshot, which stays as it is.
    if (!e->has_role(role::data | role::metadata | role::filtered | role::backing))
      continue;
    // Only these show the same bytes at the same offsets.
    const bool is_same = e->has_role(role::backing) || e->parent()->is_filter();
    e->parent()->mapping_changed(is_same ? range : everything);
  }
}

error node::report_corruption(std::string what) {
  if (!is_read_only())
    is_broken_ = true;
  mapping_changed(everything); // nothing is written in place any more
  if (!has_told_corruption_) {
    has_told_corruption_ = true;
    trace<point::node_corrupt>(owner_->home().log(), name_, what);
    value data;
    data.set("node-name", name_);
    data.set("msg", what);
    data.set("fatal", is_broken_);
    owner_->emit("BLOCK_IMAGE_CORRUPTED", std::move(data));
  }
  return {error_kind::corrupt_image,
          fmt::format("{}: {}; the image is corrupt: run 'bgfs check {}'", describe(), what,
                      host_path())};
}

result<> node::check_active() const {
  if (!is_suspended_)
    return {};
  if (loss_)
    return fail(*loss_);
  if (is_deactivated_)
    return fail(error_kind::busy, "{} is deactivated; activate it first", describe());
  return fail(error_kind::busy, "{} is being changed", describe());
}

result<> node::check_range(byte_range range, std::string_view verb) const {
  if (is_suspended_)
    return check_active();
  const u64 end = std::min(length_, device_length_max);
  if (range.length <= end && range.offset <= end - range.length)
    return {};
  return fail(error_kind::out_of_range, "cannot {} {} bytes at {:#x} of {}: it ends at {:#x}", verb,
              range.length, range.offset, describe(), length_);
}

bool node::may_grow_by_writing() const {
  if ((cumulative_permissions().used & permission::resize) == 0)
    return false;
  if (!is_filter() && !driver_->grows_by_writing())
    return false;
  const edge* below = filtered_child();
  return below == nullptr || below->child().may_grow_by_writing();
}

result<> node::check_write_range(byte_range range, std::string_view verb) const {
  if (is_suspended_)
    return check_active();
  const bool is_possible =
      range.length <= device_length_max && range.offset <= device_length_max - range.length;
  if (is_possible && range.end() > length_ && may_grow_by_writing())
    return {};
  return check_range(range, verb);
}

result<> node::check_writable() const {
  if (is_suspended_)
    return check_active();
  if (is_read_only())
    return fail(error_kind::permission, "{} is read-only; open it with 'read-only: false' to write",
                describe());
  if (is_broken_)
    return fail(error_kind::corrupt_image,
                "{} takes no more writes since it was found corrupt; see its last-error",
                describe());
  return {};
}

} // namespace bgfs
