// SPDX-License-Identifier: MIT
// map, map.json: where the bytes are, as `bgfs map` prints it. Of a root the whole chain; of a
// layer what that layer alone holds.
#include "config/render_map.h"
#include "fuse/views/common.h"

namespace bgfs {
namespace {

// A map of more pieces than this is for `bgfs map`, which does not hold it all.
constexpr std::size_t entries_max = 4'000'000;

task<std::vector<map_entry>> entries_of(view_subject subject) {
  node& top = shown_node(subject);
  const map_scope scope = subject.target != nullptr ? map_scope::one_layer : map_scope::chain;
  std::vector<map_entry> entries;
  co_await walk_map(top, {0, top.length()}, scope, [&entries](const map_entry& e) -> result<> {
    if (entries.size() == entries_max)
      return fail(error{
          error_kind::unsupported,
          fmt::format("the map has more than {} entries; use 'bgfs map' on the image", entries_max),
          EFBIG});
    entries.push_back(e);
    return {};
  });
  co_return entries;
}

task<std::string> render_text(view_subject subject) {
  const auto entries = co_await entries_of(subject);
  co_return render_map_table(entries);
}

task<std::string> render_json(view_subject subject) {
  const auto entries = co_await entries_of(subject);
  co_return render_map_json(entries);
}

} // namespace

extern constinit const view map_view{
    .name = "map", .summary = "where data is stored, for people", .render = render_text};
extern constinit const view map_json_view{
    .name = "map.json",
    .summary = "every run of bytes: start, length, depth, present, zero, data, offset",
    .render = render_json};

} // namespace bgfs
