// SPDX-License-Identifier: MIT
// info, info.json: what the image is, as `bgfs info` prints it.
#include "config/render_info.h"
#include "config/snapshot_text.h"
#include "fuse/tree/external_snapshots.h"
#include "fuse/tree/shown_disk.h"
#include "fuse/views/common.h"

namespace bgfs {
namespace {

task<value> read_node(view_subject subject) {
  (void)subject.root->disk()->length(); // follows a medium that changes by itself
  value info = co_await read_info(shown_node(subject));
  co_return info;
}

// External snapshots are no matter of the image, but of the root.
task<value> read(view_subject subject) {
  value info = co_await subject.root->place().run([&] { return read_node(subject); });
  if (has_external_snapshots(*subject.root)) {
    std::erase_if(*info.as_map(), [](const auto& member) { return member.first == "snapshots"; });
    const snapshot_index all = external_index(subject.mount, *subject.root);
    if (!all.all().empty())
      info.set("snapshots", snapshots_value(all.all()));
  }
  co_return info;
}

task<std::string> render_text(view_subject subject) {
  const value info = co_await read(subject);
  co_return render_info(info);
}

task<std::string> render_json(view_subject subject) {
  const value info = co_await read(subject);
  co_return render_info_json(info);
}

task<std::string> render_shown_json(view_subject subject) {
  const value info = co_await subject.shown->info();
  co_return render_info_json(info);
}

} // namespace

extern constinit const view info_view{.name = "info",
                                      .summary = "what the image is, for people",
                                      .render = render_text,
                                      .renders_on_mount_loop = true};
extern constinit const view info_json_view{
    .name = "info.json",
    .summary = "what the image is, for programs (keys as of qemu-img info --output=json)",
    .render = render_json,
    .renders_on_mount_loop = true};

extern constinit const view shown_info_json_view{
    .name = "info.json",
    .summary = "what it is (keys as of qemu-img info --output=json)",
    .render = render_shown_json,
    .renders_on_mount_loop = true};

} // namespace bgfs
