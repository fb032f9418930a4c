// SPDX-License-Identifier: MIT
#include "graph/model/edge.h"

#include "graph/model/node.h"

namespace bgfs {

namespace {
constexpr permission_set writing = permission::write | permission::write_unchanged;

// Who may only write what changes nothing says so with each write.
permission_set needed_for(write_flags flags) {
  return (flags & write_flag::unchanged) != 0 ? writing : permission::write;
}
} // namespace

edge::edge(std::string name, child_role roles, node* parent, node& child)
    : name_(std::move(name)), roles_(roles), parent_(parent), child_(&child) {
  child.parents_.push_back(this);
}

edge::~edge() {
  leave_child();
}

void edge::leave_child() {
  if (child_ != nullptr)
    child_->parents_.remove(this);
  child_ = nullptr;
}

void edge::lead_to(node& child) {
  leave_child();
  child_ = &child;
  child.parents_.push_back(this);
}

std::string edge::describe() const {
  if (parent_ == nullptr)
    return name_;
  return fmt::format("{} as its '{}'", parent_->describe(), name_);
}

task<void> edge::read(u64 offset, std::span<std::byte> bytes) const {
  return child_->read(offset, bytes);
}
task<void> edge::write(u64 offset, std::span<const std::byte> bytes, write_flags flags) const {
  BGFS_ASSERT((granted_.used & needed_for(flags)) != 0, "M4: only who holds the permission writes");
  return child_->write(offset, bytes, flags);
}
task<void> edge::write_zeroes(byte_range range, write_flags flags) const {
  BGFS_ASSERT((granted_.used & needed_for(flags)) != 0, "M4: only who holds the permission writes");
  return child_->write_zeroes(range, flags);
}
task<void> edge::copy_from(bytes_of_file source, u64 to_offset) const {
  BGFS_ASSERT((granted_.used & permission::write) != 0, "M4: only who holds the permission writes");
  return child_->copy_from(source, to_offset);
}
task<void> edge::discard(byte_range range) const {
  BGFS_ASSERT((granted_.used & permission::write) != 0, "M4: only who holds the permission writes");
  return child_->discard(range);
}
task<void> edge::flush() const {
  return child_->flush();
}
task<void> edge::truncate(u64 length, truncate_options options) const {
  BGFS_ASSERT((granted_.used & permission::resize) != 0, "M4: only who holds it resizes");
  return child_->truncate(length, options);
}
task<void> edge::copy_up(byte_range range, std::span<std::byte> into) const {
  BGFS_ASSERT((granted_.used & writing) != 0, "M4: only who holds the permission writes");
  return child_->copy_up(range, into);
}
task<void> edge::prefetch(byte_range range) const {
  return child_->prefetch(range);
}
u64 edge::length() const {
  return child_->length();
}

} // namespace bgfs
