// SPDX-License-Identifier: MIT
// map.svg: the map as a picture, of a root the whole chain, of a layer what it alone holds.
#include "config/map_picture.h"
#include "fuse/views/common.h"

namespace bgfs {
namespace {

// Its bits may lie in the image still.
task<void> add_bitmap(map_picture& picture, node& top, std::string name) {
  const result<const dirty_bitmap*> found = co_await as_result(top.owner().read_bitmap(top, name));
  if (!found) { // inconsistent, or removed meanwhile
    picture.add_unknown_bitmap(std::move(name));
    co_return;
  }
  const dirty_bitmap& b = **found;
  picture.add_bitmap(std::move(name), b.dirty_bytes(), [&b](u64 offset) {
    const std::optional<byte_range> next = b.next_dirty(offset);
    return next ? std::optional(std::max(offset, next->offset)) : std::nullopt;
  });
}

task<std::string> render(view_subject subject) {
  node& top = shown_node(subject);
  const bool is_layer = subject.target != nullptr;
  const std::string title =
      is_layer ? fmt::format("{}, layer {}: {}", subject.root->name(), subject.layer, top.name())
               : subject.root->name();
  map_picture picture(title, top.length());
  co_await walk_map(top, {0, top.length()}, is_layer ? map_scope::one_layer : map_scope::chain,
                    [&picture](const map_entry& e) {
                      picture.add(e);
                      return true;
                    });
  std::vector<std::string> names;
  for (const auto& b : top.bitmaps().all())
    names.push_back(b->name());
  for (std::size_t i = 0; i < std::min(names.size(), map_picture::bitmaps_max); i++)
    co_await add_bitmap(picture, top, names[i]);
  picture.leave_out_bitmaps(names.size() - std::min(names.size(), map_picture::bitmaps_max));
  co_return picture.svg();
}

} // namespace

extern constinit const view map_svg_view{
    .name = "map.svg",
    .summary = "the map as a picture, for a browser: data by depth, zeroes, holes, dirty parts",
    .render = render};

} // namespace bgfs
