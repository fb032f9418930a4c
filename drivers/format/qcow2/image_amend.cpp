// SPDX-License-Identifier: MIT
// Changing an image's version and other properties in place (reference section 3.16). In order:
// what needs version 3 comes after the upgrade, and the downgrade comes last:
//
//   records of snapshots | header: version 3, lazy refcounts, data file | keys | refcount width |
//   length | zero clusters expanded | header: version 2
//
// Each arrow is a flush, and each state is a sound image that holds what it held.
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

#include <algorithm>

namespace bgfs::qcow2 {

namespace {

constexpr std::size_t snapshot_extra_v3 = 16;

// A step of several, as a part of them all.
std::function<void(u64, u64)> part_of(const std::function<void(u64, u64)>& whole, u64 index,
                                      u64 steps) {
  if (!whole)
    return {};
  return [&whole, index, steps](u64 done, u64 total) {
    constexpr u64 unit = 1000;
    whole(index * unit + (total == 0 ? unit : done * unit / total), steps * unit);
  };
}

void set_data_file(header& h, const std::string& name) {
  const auto at =
      std::ranges::find(h.extensions, extension_type::data_file, &header_extension::type);
  const auto place = at - h.extensions.begin();
  std::erase_if(h.extensions, [](const auto& e) { return e.type == extension_type::data_file; });
  if (!name.empty())
    h.extensions.insert(h.extensions.begin() + std::min(place, std::ssize(h.extensions)),
                        make_data_file(name));
}

void upgrade(header& h) {
  h.version = 3;
  std::erase_if(h.extensions,
                [](const auto& e) { return e.type == extension_type::feature_names; });
  add_feature_names(h);
}

// Only what version 2 has is left: nobody who reads it looks at the rest, and nobody maintains it.
void make_version_2(header& h) {
  h.version = 2;
  h.incompatible = h.compatible = h.autoclear = 0;
  h.unknown_fields.clear();
  std::erase_if(h.extensions, [](const auto& e) {
    return e.type == extension_type::feature_names || e.type == extension_type::bitmaps;
  });
}

} // namespace

task<void> image::amend(amend_request request) {
  const amend_plan plan = co_await plan_amendment(request.given, header_, snapshots_.size());
  if (request_.is_read_only)
    co_await fail(error_kind::permission,
                  "the image is open read-only: it cannot be amended; open it with 'read-only: "
                  "false'");
  co_await file_.check_not_stopped();
  if (plan.is_empty(header_))
    co_return;
  co_await amend_in_order(request, plan);
}

task<void> image::amend_in_order(const amend_request& request, const amend_plan& plan) {
  co_await shielded(begin_amending(plan));
  const bool downgrades = plan.version < header_.version;
  const u64 steps = (plan.refcount_order ? 1u : 0u) + (downgrades ? 1u : 0u);
  if (plan.changes_header(header_))
    co_await shielded(change_header(plan));
  if (plan.changes_keys)
    co_await change_keys(request);
  if (plan.refcount_order)
    co_await context(change_width(*plan.refcount_order, part_of(request.progress, 0, steps)),
                     "changing the width of refcounts");
  if (plan.length)
    co_await context(truncate(*plan.length, {}), "changing the length of the disk");
  if (downgrades)
    co_await context(downgrade(part_of(request.progress, steps - 1, steps)),
                     "going back to version 2");
  if (request.progress)
    request.progress(1, 1);
}

// Whether counts fit is known before anything changes.
task<void> image::begin_amending(const amend_plan& plan) {
  BGFS_ASSERT(allocations_.is_empty(), "Q7: nobody writes while the image is amended");
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await make_writable();
  if (!plan.refcount_order)
    co_return;
  co_await apply_all_frees();
  co_await allocator_->check_width(*plan.refcount_order);
}

// Version 3 demands that a snapshot says how long its disk is; version 2 allows it. If we stop
// after this, the image is of version 2 as it was.
task<void> image::give_snapshots_lengths() {
  const bool lacks_length = std::ranges::any_of(
      snapshots_, [](const snapshot& s) { return s.extra.size() < snapshot_extra_v3; });
  if (!lacks_length)
    co_return;
  co_await begin_snapshot_change();
  std::vector<std::byte> bytes = co_await serialise_snapshots(snapshots_, 3, header_.disk_length);
  const cluster_run place = co_await place_for(bytes.size());
  result<> switched = co_await as_result(switch_snapshots_to(snapshots_, std::move(bytes), place));
  if (switched) {
    co_await apply_all_frees();
    co_return;
  }
  co_await give_back(place);
  co_await fail(std::move(switched).error());
}

// Lazy refcounts that end are written, and the image is clean, before the bit goes.
task<void> image::change_header(const amend_plan& plan) {
  const bool upgrades = plan.version > header_.version;
  if (plan.has_lazy_refcounts && !*plan.has_lazy_refcounts) {
    co_await close_writable();
    is_lazy_ = false;
    store_->set_lazy(false);
  }
  const async_mutex::guard lock = co_await store_->lock().lock();
  if (upgrades)
    co_await give_snapshots_lengths();
  co_await switch_header_to([&plan, upgrades](header& h) {
    if (upgrades)
      upgrade(h);
    if (plan.has_lazy_refcounts)
      h.compatible = *plan.has_lazy_refcounts ? h.compatible | compatible_bit::lazy_refcounts
                                              : h.compatible & ~compatible_bit::lazy_refcounts;
    if (plan.data_file)
      set_data_file(h, *plan.data_file);
    if (plan.clears_raw)
      h.autoclear &= ~autoclear_bit::raw_data_file;
  });
}

task<void> image::switch_header_to(std::function<void(header&)> change) {
  const std::vector<std::byte> disk = co_await read_first_cluster();
  header_switch planned = co_await plan_header_switch(disk, change);
  co_await switch_header(std::move(planned));
}

task<void> image::change_width(unsigned order, progress_function progress) {
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await begin_metadata_change();
  co_await apply_all_frees();
  co_await allocator_->change_width(order, progress);
  // The old structures are not referred to on the disk any more. If we stop here, they leak.
  co_await apply_all_frees();
  co_await file_.flush();
  co_await trim_file();
}

task<void> image::downgrade(progress_function progress) {
  co_await expand_zeroes(progress);
  // Everything is durable, refcounts too, and the dirty bit, which version 2 lacks, is not set.
  co_await shielded(close_writable());
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await switch_header_to(make_version_2);
  is_lazy_ = false;
  store_->set_lazy(false);
  settings_.has_lazy_refcounts = false;
  settings_.keeps_reference = false;
}

} // namespace bgfs::qcow2
