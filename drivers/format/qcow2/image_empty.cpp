// SPDX-License-Identifier: MIT
// Giving up all content (reference section 3.14), so that the backing file shows.
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {

result<> image::check_may_become_empty() const {
  if (request_.is_read_only)
    return fail(error_kind::permission,
                "the image is open read-only: it cannot be made empty; open it with 'read-only: "
                "false'");
  BGFS_CHECK(file_.check_not_stopped());
  // What reads the file alone would go on showing what the image gave up.
  if (header_.has_raw_data_file())
    return fail(error_kind::unsupported,
                "the data file of the image is raw, and always holds all of the disk: the image "
                "cannot be made empty");
  return {};
}

// Fast: an empty L1 table takes the place of the old one in a single write of the header, as if a
// snapshot that holds nothing were reverted to. Nothing is kept of what only the disk had; what
// snapshots have, too, stays (Q10). If we stop before the write, the image holds all that it held;
// after it, nothing, and the old tables and data leak.
task<void> image::empty_at_once() {
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await begin_metadata_change();
  co_await apply_all_frees();
  const std::vector<u64> former = l1_;
  const cluster_run former_place = clusters_of(g(), {header_.l1.value, former.size() * 8});
  reference_walk check{.step = walk_step::check_dropping, .whose = "the disk"};
  co_await walk_references(former, check);
  if (file_.tells())
    co_await file_.tell(debug_event::empty_image_prepare);
  const cluster_run place = co_await place_for(former.size() * 8);
  snapshot nothing;
  nothing.disk_length = header_.disk_length;
  reference_walk adding{.step = walk_step::add, .whose = "the empty disk"};
  if (file_.tells())
    co_await file_.tell(debug_event::l1_update);
  result<> switched =
      co_await as_result(switch_disk(nothing, std::vector<u64>(former.size()), place, adding));
  if (!switched) {
    co_await give_back(place);
    co_await fail(std::move(switched).error());
  }
  result<> freed = co_await as_result(free_former_disk(former, former_place));
  if (!freed) {
    freed.error().add_context("the image is empty, but some of its space could not be freed and is "
                              "lost until the image is repaired");
    co_await fail(std::move(freed).error());
  }
  co_await restore_copied();
  co_await write_and_flush();
  co_await trim_file();
}

// Clusters of a data file are not counted; their entries are removed one by one, and the host may
// take the space.
task<void> image::make_empty() {
  co_await check_may_become_empty();
  BGFS_ASSERT(allocations_.is_empty(), "Q7: nobody writes while the image is made empty");
  if (!is_prepared_)
    co_await shielded(prepare_to_write());
  if (l1_.empty())
    co_return;
  if (!header_.has_data_file()) {
    co_await shielded(empty_at_once());
    co_return;
  }
  co_await clear({.guest = {0, std::max(align_up(header_.disk_length, g().cluster()),
                                        l1_.size() * g().l2_span())},
                  .rules = {rules(), false, true, false},
                  .mode = clear_mode::remove,
                  .reason = free_reason::snapshot});
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await shielded(write_back_locked());
  co_await file_.flush();
}

} // namespace bgfs::qcow2
