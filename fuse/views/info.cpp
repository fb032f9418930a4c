// SPDX-License-Identifier: MIT
// info, info.json: what the image is, as `bgfs info` prints it.
#include "config/render_info.h"
#include "fuse/tree/shown_disk.h"
#include "fuse/views/common.h"

namespace bgfs {
namespace {

task<std::string> render_text(view_subject subject) {
  const value info = co_await read_info(shown_node(subject));
  co_return render_info(info);
}

task<std::string> render_json(view_subject subject) {
  const value info = co_await read_info(shown_node(subject));
  co_return render_info_json(info);
}

task<std::string> render_shown_json(view_subject subject) {
  const value info = co_await subject.shown->info();
  co_return render_info_json(info);
}

} // namespace

extern constinit const view info_view{
    .name = "info", .summary = "what the image is, for people", .render = render_text};
extern constinit const view info_json_view{
    .name = "info.json",
    .summary = "what the image is, for programs (keys as of qemu-img info --output=json)",
    .render = render_json};

extern constinit const view shown_info_json_view{
    .name = "info.json",
    .summary = "what it is (keys as of qemu-img info --output=json)",
    .render = render_shown_json,
    .renders_on_mount_loop = true};

} // namespace bgfs
