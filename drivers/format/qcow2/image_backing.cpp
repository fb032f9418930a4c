// SPDX-License-Identifier: MIT
// Changing the backing name in the header (reference section 1.4).
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {

task<void> image::change_backing_reference(std::optional<image_reference> reference) {
  if (request_.is_read_only)
    co_await fail(error_kind::permission,
                  "the backing file name of a read-only image cannot change; open it with "
                  "'read-only: false'");
  if (reference && header_.has_raw_data_file())
    co_await fail(error_kind::unsupported,
                  "the data file of the image is raw, and always holds all of the disk: the image "
                  "cannot have a backing file");
  co_await file_.check_not_stopped();
  const async_mutex::guard lock = co_await store_->lock().lock(); // nobody writes other fields
  const std::vector<std::byte> disk = co_await read_first_cluster();
  header_switch change = co_await plan_header_switch(disk, reference);
  co_await shielded(switch_header(std::move(change)));
}

task<std::vector<std::byte>> image::read_first_cluster() {
  std::vector<std::byte> bytes(std::min(file_.length(), g().cluster()));
  co_await file_.read_structure(host_offset(0), bytes, "the header");
  co_return bytes;
}

// See header_switch.h for what each step leaves on the disk.
task<void> image::switch_header(header_switch change) {
  if (!change.staged.empty()) {
    co_await file_.write_header(change.staged_at, change.staged);
    co_await file_.flush();
  }
  const bool is_detoured = !change.staged.empty();
  // Durable, or undone when it fails.
  co_await file_.write_location(change.fields_at, is_detoured ? change.switched : change.settled,
                                change.before);
  header_.version = change.after.version;
  header_.incompatible = change.after.incompatible;
  header_.compatible = change.after.compatible;
  header_.autoclear = change.after.autoclear;
  header_.unknown_fields = change.after.unknown_fields;
  header_.backing_file = change.after.backing_file;
  header_.autoclear = change.after.autoclear;
  header_.extensions = change.after.extensions;
  if (!is_detoured)
    co_return;
  // The new name is in force. What follows only puts it where it belongs: an image that keeps its
  // detour is as good, and the next change takes it away.
  const result<> settled = co_await as_result(settle_header(std::move(change)));
  if (!settled)
    co_await file_.check_not_stopped();
}

task<void> image::settle_header(header_switch change) {
  co_await file_.write_header(change.body_at, change.body);
  co_await file_.flush();
  co_await file_.write_location(change.fields_at, change.settled, change.switched);
  const std::vector<std::byte> nothing(change.leftover.length);
  co_await file_.write_header(change.leftover.offset, nothing);
}

} // namespace bgfs::qcow2
