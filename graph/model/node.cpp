// SPDX-License-Identifier: MIT
#include "graph/model/node.h"

#include "graph/model/graph.h"

namespace bgfs {

node::node(graph& owner, std::string name, const driver_type& type, options given,
           node_options generic)
    : owner_(owner), name_(std::move(name)), type_(&type), given_(std::move(given)),
      generic_(generic), requested_(generic) {
  requests_.trace_as(owner_.home(), name_);
}

node::~node() {
  BGFS_ASSERT(parents_.empty(), "M1: a node outlives its parents");
  BGFS_ASSERT(requests_.in_flight() == 0, "M2: a node outlives its requests");
}

void node::find_faces() {
  driver* d = driver_.get();
  readable_ = dynamic_cast<readable*>(d);
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
}

void node::refresh_limits() {
  block_limits limits;
  if (!children_.empty())
    limits.max_vectors = 0; // the children say; see merge_child_limits
  for (const auto& e : children_)
    if (e->has_role(role::data | role::filtered | role::backing))
      merge_child_limits(limits, e->child().limits());
  if (limits.max_vectors == 0)
    limits.max_vectors = 1024;
  driver_->refine_limits(limits);
  BGFS_ASSERT(is_power_of_two(limits.request_alignment));
  BGFS_ASSERT(limits.request_alignment <= alignment_max);
  limits_ = limits;
}

void node::refresh_length() {
  length_ = driver_->length();
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

permissions node::cumulative_permissions() const {
  permissions p{0, permission::all};
  for (const edge* e : parents_) {
    p.used |= e->granted().used;
    p.shared &= e->granted().shared;
  }
  return p;
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

error node::report_corruption(std::string what) {
  if (!is_read_only())
    is_broken_ = true;
  trace<point::node_corrupt>(owner_.home().log(), name_, what);
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
  if (range.length <= length_ && range.offset <= length_ - range.length)
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
