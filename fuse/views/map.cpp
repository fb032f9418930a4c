// SPDX-License-Identifier: MIT
// map, map.json: where the bytes are, as `bgfs map` prints it. Of a root the whole chain; of a
// layer what that layer alone holds.
#include "config/render_map.h"
#include "fuse/views/common.h"

namespace bgfs {
namespace {

// Entries become text as they are found: nothing but the text is held.
template<class Write>
task<void> write_map(view_subject subject, std::string& text, Write write) {
  node& top = shown_node(subject);
  const map_scope scope = subject.target != nullptr ? map_scope::one_layer : map_scope::chain;
  co_await walk_map(top, {0, top.length()}, scope, [&](const map_entry& e) -> result<> {
    text += write(e);
    if (text.size() <= map_text_length_max)
      return {};
    return fail(error{error_kind::unsupported,
                      fmt::format("the map is longer than {} MiB; use 'bgfs map' on the image",
                                  map_text_length_max / MiB),
                      EFBIG});
  });
}

task<std::string> render_text(view_subject subject) {
  std::string text(map_table_head);
  co_await write_map(subject, text, [](const map_entry& e) { return map_view_row(e); });
  co_return text;
}

task<std::string> render_json(view_subject subject) {
  std::string text;
  map_json_writer writer;
  co_await write_map(subject, text, [&writer](const map_entry& e) { return writer.entry(e); });
  text += writer.end();
  co_return text;
}

} // namespace

extern constinit const view map_view{
    .name = "map", .summary = "where data is stored, for people", .render = render_text};
extern constinit const view map_json_view{
    .name = "map.json",
    .summary = "every run of bytes: start, length, depth, present, zero, data, offset",
    .render = render_json};

} // namespace bgfs
