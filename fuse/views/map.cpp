// SPDX-License-Identifier: MIT
// map, map.json: where the bytes are, as `bgfs map` prints it. Of a root and a snapshot the whole
// chain; of a layer what that layer alone holds.
#include "config/render_map.h"
#include "fuse/tree/shown_disk.h"
#include "fuse/views/common.h"

namespace bgfs {
namespace {

// Entries become text as they are found: nothing but the text is held.
template<class Write>
task<void> write_map(node& top, map_scope scope, std::string& text, Write write) {
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

task<std::string> text_of(node& top, map_scope scope) {
  std::string text(map_table_head);
  co_await write_map(top, scope, text, [](const map_entry& e) { return map_view_row(e); });
  co_return text;
}

task<std::string> json_of(node& top, map_scope scope) {
  std::string text;
  map_json_writer writer;
  co_await write_map(top, scope, text, [&writer](const map_entry& e) { return writer.entry(e); });
  text += writer.end();
  co_return text;
}

using rendering = task<std::string> (*)(node& top, map_scope scope);

task<std::string> render_root(view_subject subject, rendering how) {
  return how(shown_node(subject), map_scope::chain);
}

// While it is walked it is open.
task<std::string> render_shown(view_subject subject, rendering how) {
  const disk_use use = co_await subject.shown->open(subject.pid);
  co_await use.disk->require_attached();
  node& top = use.disk->top();
  const map_scope scope = subject.shown->scope();
  std::string text = co_await subject.root->place().run([&] { return how(top, scope); });
  co_return text;
}

} // namespace

constexpr std::string_view text_summary = "where data is stored, for people";
constexpr std::string_view json_summary =
    "every run of bytes: start, length, depth, present, zero, data, offset";

extern constinit const view map_view{
    .name = "map", .summary = text_summary, .render = [](view_subject subject) {
      return render_root(std::move(subject), text_of);
    }};
extern constinit const view map_json_view{
    .name = "map.json", .summary = json_summary, .render = [](view_subject subject) {
      return render_root(std::move(subject), json_of);
    }};
extern constinit const view shown_map_view{
    .name = "map",
    .summary = text_summary,
    .render = [](view_subject subject) { return render_shown(std::move(subject), text_of); },
    .renders_on_mount_loop = true};
extern constinit const view shown_map_json_view{
    .name = "map.json",
    .summary = json_summary,
    .render = [](view_subject subject) { return render_shown(std::move(subject), json_of); },
    .renders_on_mount_loop = true};

} // namespace bgfs
