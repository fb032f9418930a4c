// SPDX-License-Identifier: MIT
// Going on with other options while the image is open (reference section 1.4).
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {

// The tables in memory count only if nobody has changed the image since they were read: locks see
// to that, unless the user did without.
task<void> image::check_may_become_writable() {
  if (request_.self->generic().force_share)
    co_await fail(error_kind::unsupported,
                  "the image was opened with 'force-share', so that what is known of it may be out "
                  "of date; to write it has to be opened anew");
  const header now = co_await read_header(*request_.file);
  if (now != header_)
    co_await fail(error_kind::unsupported,
                  "the header has changed since the image was opened; to write it has to be opened "
                  "anew");
  co_await check_writable(header_, request_);
  if (header_.is_dirty())
    co_await fail(error_kind::unsupported,
                  "the image was not closed properly, and to repair it it has to be opened anew");
}

task<void> image::prepare_reopen(const options& given, const node_options& generic) {
  BGFS_ASSERT(!next_, "one reopen at a time");
  if (file_.is_stopped())
    co_await fail(error_kind::unsupported,
                  "the image takes no more writes ({}), so it has to be opened anew",
                  file_.stop_reason());
  co_await check_only_mutable_change(open_schema, request_.self->given(), given);
  if (request_.is_read_only && !generic.is_read_only)
    co_await check_may_become_writable();
  reopening next{.how = {}, .is_read_only = generic.is_read_only, .region = {}, .overlaps = {}};
  next.how = co_await read_settings(given, header_, generic.discard == discard_mode::unmap);
  const cache_settings& now = settings_.caches;
  const cache_settings& wanted = next.how.caches;
  if (wanted.l2 != now.l2 || wanted.refcounts != now.refcounts)
    next.region = co_await metadata_region::create({wanted.l2, wanted.refcounts});
  const bool is_settled =
      next.is_read_only || next.region != nullptr || (is_lazy_ && !next.how.has_lazy_refcounts);
  // The same as closing: everything is written, and the image is marked clean. It goes on from
  // there if the reopen is given up.
  if (!request_.is_read_only && is_settled)
    co_await shielded(close_writable());
  if (next.how.overlap_checks != settings_.overlap_checks) {
    overlap_map known(g(), next.how.overlap_checks);
    co_await find_metadata(known);
    next.overlaps = std::move(known);
  }
  next_ = std::move(next);
}

void image::commit_reopen() noexcept {
  BGFS_ASSERT(next_.has_value(), "what is committed was prepared");
  reopening next = *std::move(next_);
  next_.reset();
  if (request_.is_read_only && !next.is_read_only)
    is_prepared_ = false;
  request_.is_read_only = next.is_read_only;
  file_.set_writable(!next.is_read_only);
  if (next.region)
    store_->use_region(std::move(next.region));
  if (next.overlaps)
    file_.set_overlaps(*std::move(next.overlaps));
  inflated_.clear();
  settings_ = next.how;
  is_lazy_ = settings_.has_lazy_refcounts && !next.is_read_only;
  store_->set_lazy(is_lazy_);
  allocator_->set_policy(settings_.discards);
  home_->disarm(cleaning_);
  cleaning_.interval = std::chrono::milliseconds(settings_.caches.clean_interval_ms);
  arm_cleaning();
}

// What opening for writing does first. If it fails, the first write tries again (prepare_to_write).
task<void> image::finish_reopen() {
  if (!request_.is_read_only)
    co_await shielded(make_writable());
}

void image::abort_reopen() noexcept {
  next_.reset();
}

} // namespace bgfs::qcow2
