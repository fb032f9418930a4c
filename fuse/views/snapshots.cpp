// SPDX-License-Identifier: MIT
// snapshots/NAME/hold: 1 keeps the snapshot from being deleted.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

task<std::string> render_hold(view_subject subject) {
  co_return subject.root->snapshots().is_held(subject.snapshot) ? "1\n" : "0\n";
}

task<void> write_hold(view_subject subject, std::string text) {
  root_snapshots& all = subject.root->snapshots();
  const snapshot_index_pointer known = co_await all.index();
  if (known->find_key(subject.snapshot) == nullptr)
    co_await fail(error_kind::not_found, "the snapshot is gone");
  if (text != "0" && text != "1")
    co_await fail(error_kind::invalid_argument,
                  "write 1 to keep the snapshot from being deleted, 0 to let it go, not '{}'",
                  text);
  if (text == "1") {
    all.hold(subject.snapshot);
  } else {
    all.let_go(subject.snapshot);
  }
}

} // namespace

extern constinit const view snapshot_hold_view{
    .name = "hold",
    .summary = "1 keeps it from being deleted (EBUSY) until 0 is written or the mount ends",
    .render = render_hold,
    .write = write_hold,
    .renders_on_mount_loop = true,
    .writes_on_mount_loop = true};

} // namespace bgfs
