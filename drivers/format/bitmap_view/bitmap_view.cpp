// SPDX-License-Identifier: MIT
#include "drivers/format/bitmap_view/bitmap_view.h"

#include "graph/model/bitmap_change.h"
#include "graph/model/graph.h"

namespace bgfs {
namespace {

constexpr option option_list[] = {
    {.name = "bitmap", .help = "its name", .is_required = true, .is_strong = true},
};
constexpr option_schema bitmap_view_options{"driver 'bitmap-view'", option_list};
// Others may write to it: that is what bitmaps are for.
constexpr child_slot slots[] = {{"file", role::primary}};

// No mapping is kept by anybody (try_map): a clear part becomes a dirty one without a word.
class bitmap_view_driver final : public driver, public readable, public mappable {
public:
  bitmap_view_driver(const node& self, edge& file, dirty_bitmap& which)
      : file_(file),
        hold_(std::in_place, file.child(), which, fmt::format("node '{}'", self.name())) {}

  // The bitmap's node keeps its length as long as this holds it.
  [[nodiscard]] u64 length() const override { return file_.length(); }
  task<void> close() override {
    hold_.reset();
    co_return;
  }
  void refine_limits(block_limits& limits) const override {
    limits.request_alignment = file_.child().limits().request_alignment;
  }
  [[nodiscard]] permissions child_permissions(const edge&, permissions) const override {
    return {permission::consistent_read, permission::all};
  }
  [[nodiscard]] std::optional<extent> try_map(byte_range) override { return std::nullopt; }
  task<extent> map(byte_range range) override { co_return find(range); }
  task<void> read(u64 offset, std::span<std::byte> bytes) override {
    return file_.read(offset, bytes);
  }

private:
  [[nodiscard]] extent find(byte_range range) const {
    if (range.offset >= length())
      return {.kind = extent_kind::end};
    range.length = std::min(range.length, length() - range.offset);
    const std::optional<byte_range> dirty = hold_->bitmap().next_dirty(range.offset);
    if (!dirty || dirty->offset >= range.end())
      return {.length = range.length, .kind = extent_kind::zero};
    if (dirty->offset > range.offset)
      return {.length = dirty->offset - range.offset, .kind = extent_kind::zero};
    return {.length = std::min(dirty->end(), range.end()) - range.offset,
            .kind = extent_kind::data,
            .where = &file_,
            .offset = range.offset};
  }

  edge& file_;
  std::optional<bitmap_hold> hold_;
};

task<std::unique_ptr<driver>> open_bitmap_view(open_request request) {
  edge& file = *request.children[0];
  node& of = file.child();
  const std::string& name = request.given.text("bitmap");
  dirty_bitmap* const found = of.bitmaps().find(name);
  if (found == nullptr)
    co_return fail(error_kind::not_found, "{} has no bitmap '{}'", of.describe(), name);
  if (!request.is_read_only)
    co_return fail(error_kind::permission,
                   "what a bitmap marks cannot be written to; open it with 'read-only: true'");
  if (found->is_inconsistent())
    co_return fail(error_kind::corrupt_image,
                   "bitmap '{}' of {} is inconsistent ({}): it can only be removed", name,
                   of.describe(), found->definition().inconsistency);
  // Reading it needs the graph, which is opening this node.
  if (!found->is_complete())
    co_return fail(error_kind::busy,
                   "bitmap '{}' of {} was not read from its image yet; look at it first", name,
                   of.describe());
  co_return std::make_unique<bitmap_view_driver>(request.self, file, *found);
}

} // namespace

const driver_type bitmap_view_driver_type{
    .name = "bitmap-view",
    .kind = driver_kind::format,
    .summary = "what a dirty bitmap of its child marks; zeroes elsewhere",
    .children = slots,
    .open_options = &bitmap_view_options,
    .open = open_bitmap_view,
};

} // namespace bgfs
