// SPDX-License-Identifier: MIT
// External data files (spec, "External data file"; reference section 3.8): each guest cluster lies
// at its own offset in a file of its own, which nobody counts. The L2 tables only say whether it is
// in use. What the guest's bytes there hold before they are in use is unknown.
//
// A raw data file is the disk, byte for byte, also for those who read it without the image. So
// nothing of it may be known to the tables alone: zero writes and discards change the bytes
// themselves and leave the tables as they are, and every cluster is in use from the start.
#include "drivers/format/qcow2/image.h"

namespace bgfs::qcow2 {

result<> check_data_file(const header& h, const image_request& request) {
  if (!h.has_data_file() && request.data_file != nullptr)
    return fail(error_kind::invalid_argument,
                "'data-file' is given, but the image keeps its data in its own file; leave it out");
  if (h.has_data_file() && request.data_file == nullptr && !request.is_info_only)
    return fail(error_kind::invalid_image,
                "the image keeps its data in an external data file, and its header does not say "
                "which; give it as 'data-file'");
  return {};
}

// An image that is written changes its data file also when nobody is above it any more: discards
// that were waiting are passed on when it is closed.
permissions image::child_permissions(const edge& child, permissions parents) const {
  permissions p = driver::child_permissions(child, parents);
  if (child.name() == "data-file" && !child.parent()->is_read_only())
    p.used |= permission::write | permission::resize;
  return p;
}

cluster_run image::place_in_data_file(guest_offset cluster, u64 count) const {
  return {cluster.value >> g().cluster_bits, count};
}

task<void> image::zero_raw_data(byte_range range, write_flags flags) {
  if (header_.is_encrypted()) // zeroes are not stored as zeroes
    co_await fail(error_kind::unsupported, "encrypted data are zeroed by writing them");
  co_await file_.write_zeroes(range, flags);
}

// Before the header says how long the disk is. What an earlier, longer disk left behind the end
// goes away on the way.
task<void> image::grow_data_file(u64 before, u64 length, truncate_options options) {
  if (file_.data_length() > before && !request_.keeps_data_file)
    co_await file_.extend_data(before, {});
  truncate_options how;
  how.prealloc =
      options.prealloc == preallocation::metadata ? preallocation::off : options.prealloc;
  if (file_.data_length() < length)
    co_await file_.extend_data(length, how);
}

} // namespace bgfs::qcow2
