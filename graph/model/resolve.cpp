// SPDX-License-Identifier: MIT
#include "graph/model/resolve.h"

#include "graph/model/graph.h"

namespace bgfs {

// Follows one way from node to node. A friend of node: what drivers can do is looked up there.
class extent_resolver {
public:
  extent_resolver(node& top, byte_range range) : at_(&top), offset_(range.offset) {
    found_.length = range.length;
    found_.may_write = true;
  }

  std::optional<resolution> run() {
    for (;;) {
      if (!at_->is_active() || at_->check_active().has_value() == false)
        return std::nullopt;
      if (found_.node_count == resolution::nodes_max)
        return std::nullopt;
      found_.way[found_.node_count++] = at_;
      found_.may_write = found_.may_write && may_be_written(*at_);
      if (at_->direct_file_ != nullptr)
        return end_in_file();
      if (!step())
        return std::nullopt;
      if (is_done_)
        return std::move(found_);
    }
  }

private:
  // Whether a write may pass this node without its knowing.
  [[nodiscard]] static bool may_be_written(const node& n) {
    return n.check_writable().has_value() && n.generic().detect_zeroes == detect_zeroes_mode::off &&
           n.limits().zones.model == zone_model::none && !n.bitmaps().is_recording();
  }

  std::optional<resolution> end_in_file() {
    const std::optional<direct_access> file = at_->direct_file_->direct();
    if (!file || offset_ >= at_->length())
      return std::nullopt;
    found_.length = std::min(found_.length, at_->length() - offset_);
    found_.may_write = found_.may_write && file->may_write;
    found_.offset = offset_;
    found_.file = *file;
    return std::move(found_);
  }

  void zeroes() {
    found_.is_zero = true;
    found_.may_write = false;
    is_done_ = true;
  }

  void go_on(const edge& to, u64 offset) {
    at_ = &to.child();
    offset_ = offset;
  }

  // False: this node has to be asked.
  bool step() {
    if (at_->mappable_ != nullptr && at_->type().kind != driver_kind::protocol)
      return follow_mapping();
    const edge* const below = at_->filtered_child();
    if (at_->readable_ != nullptr || !at_->is_filter() || below == nullptr)
      return false;
    found_.may_write = found_.may_write && at_->writable_ == nullptr;
    go_on(*below, offset_);
    return true;
  }

  bool follow_mapping() {
    const std::optional<extent> e = at_->mappable_->try_map({offset_, found_.length});
    if (!e || (e->kind != extent_kind::end && e->length == 0))
      return false;
    if (e->kind != extent_kind::end)
      found_.length = std::min(found_.length, e->length);
    switch (e->kind) {
    case extent_kind::data:
      if (e->where == nullptr)
        return false;
      found_.may_write = found_.may_write && e->may_overwrite;
      go_on(*e->where, e->offset);
      return true;
    case extent_kind::zero:
    case extent_kind::end:
      zeroes();
      return true;
    case extent_kind::unallocated:
      follow_backing();
      return true;
    case extent_kind::encoded:
      return false;
    }
    return false;
  }

  void follow_backing() {
    found_.may_write = false;
    const edge* const backing = at_->backing();
    const u64 length = backing != nullptr ? backing->length() : 0;
    if (offset_ >= length) {
      zeroes();
      return;
    }
    found_.length = std::min(found_.length, length - offset_);
    go_on(*backing, offset_);
  }

  node* at_;
  u64 offset_;
  resolution found_;
  bool is_done_ = false;
};

std::optional<resolution> resolve_extent(node& top, byte_range range) {
  return extent_resolver(top, range).run();
}

} // namespace bgfs
