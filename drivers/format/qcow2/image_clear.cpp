// SPDX-License-Identifier: MIT
// Zero writes and discards: changes of L2 entries without data (reference section 3.6).
#include "drivers/format/qcow2/image.h"
#include "graph/io/spawn.h"

namespace bgfs::qcow2 {

write_flags image::supported_zero_flags() const {
  return write_flag::may_unmap | write_flag::no_fallback;
}

task<void> image::write_zeroes(byte_range range, write_flags flags) {
  const bool reaches_end = range.end() == header_.disk_length;
  const u64 unit = header_.version < 3 ? g().cluster() : g().subcluster();
  if (!is_aligned(range.offset, unit) || (!is_aligned(range.end(), unit) && !reaches_end)) {
    // Where only the end of the backing file makes it so, it must stay so without it.
    const bool is_zero_already = co_await reads_as_zero(range, zero_because::image_says_so);
    if (!is_zero_already)
      co_await fail(error_kind::unsupported, "only whole subclusters of {:#x} bytes can be zeroed",
                    unit);
    co_return;
  }
  if (header_.version < 3 && may_have_backing())
    co_await fail(error_kind::unsupported,
                  "version 2 has no zero clusters to hide the backing file with");
  if (!is_prepared_)
    co_await shielded(prepare_to_write());
  const bool may_unmap = (flags & write_flag::may_unmap) != 0;
  if (header_.has_raw_data_file()) {
    co_await zero_raw_data(range, flags);
    co_return;
  }
  range.length = align_up(range.end(), unit) - range.offset;
  co_await clear({.guest = range,
                  .rules = {rules(), may_have_backing(), may_unmap, settings_.keeps_reference}});
}

task<void> image::discard(byte_range range) {
  const bool reaches_end = range.end() == header_.disk_length;
  if (!is_aligned(range.offset, g().cluster()) ||
      (!is_aligned(range.end(), g().cluster()) && !reaches_end))
    co_await fail(error_kind::unsupported, "only whole clusters of {:#x} bytes can be discarded",
                  g().cluster());
  if (header_.version < 3 && may_have_backing())
    co_await fail(error_kind::unsupported,
                  "version 2 has no zero clusters to hide the backing file with");
  if (!is_prepared_)
    co_await shielded(prepare_to_write());
  if (header_.has_raw_data_file()) {
    co_await zero_raw_data(range, write_flag::may_unmap);
    co_return;
  }
  range.length = align_up(range.end(), g().cluster()) - range.offset;
  co_await clear(
      {.guest = range, .rules = {rules(), may_have_backing(), true, settings_.keeps_reference}});
}

task<void> image::clear(clear_request request) {
  while (!request.guest.is_empty()) {
    const u64 done = co_await shielded(clear_some(request));
    request.guest = byte_range::between(request.guest.offset + done, request.guest.end());
  }
}

// The first bytes of the request, at most one slice; 0 when a write in flight had to end first.
task<u64> image::clear_some(clear_request request) {
  async_mutex::guard lock = co_await store_->lock().lock();
  const guest_offset at(request.guest.offset);
  const u64 l1_index = g().l1_index(at);
  const bool has_table = l1_index < l1_.size() && (l1_[l1_index] & entry_offset_mask) != 0;
  const bool needs_table = request.mode == clear_mode::zero && request.rules.has_backing;
  if (has_table || needs_table) {
    const u64 slice_end = align_down(at.value, slice_span()) + slice_span();
    request.guest.length = std::min(request.guest.length, slice_end - at.value);
  }
  // Q7: what is being written gets its place first; then it can be taken away.
  if (const auto conflict = allocations_.first_conflict(request.guest.widened_to(g().cluster()))) {
    if (*conflict <= at.value) {
      lock.unlock();
      co_await allocations_.ended();
      co_return 0;
    }
    request.guest.length = align_down(*conflict, g().cluster()) - at.value;
    if (request.guest.is_empty())
      co_return 0;
  }
  if (!has_table && !needs_table) { // nothing there, and nothing shows through
    const std::optional<guest_run> run = lookup(at, request.guest.length, split_at::kind);
    BGFS_ASSERT(run.has_value(), "no L2 table is needed to know that there is none");
    co_return std::min(run->length, request.guest.length);
  }
  if (allocator_->has_many_frees() && allocator_->has_ready_frees())
    co_await write_back_locked();
  u64 done = co_await clear_slice(request);
  co_return done;
}

std::optional<entry_change> image::change_of(const clear_request& request, l2_entry old,
                                             guest_offset cluster) const {
  if (request.mode == clear_mode::remove)
    return remove_cluster(old);
  const byte_range part = request.guest.intersection({cluster.value, g().cluster()});
  const auto first = static_cast<unsigned>((part.offset - cluster.value) / g().subcluster());
  const auto count = static_cast<unsigned>(part.length / g().subcluster());
  return zero_subclusters(request.rules, old, first, count);
}

task<u64> image::clear_slice(clear_request request) {
  const guest_offset at(request.guest.offset);
  const guest_offset first = at.aligned_down(g().cluster());
  const u64 count = divide_up(request.guest.end() - first.value, g().cluster());
  const u64 index = index_in_slice(at);
  // A first look: a table shared with a snapshot is not copied for nothing.
  bool changes = (l1_[g().l1_index(at)] & entry_offset_mask) == 0;
  if (!changes) {
    (void)co_await find_run(at, 1, split_at::kind, metadata_lock::held); // reports a bad table
    co_await check_entries(first, count);
    const std::span<const std::byte> slice =
        co_await store_->load_l2(slice_of(at), metadata_lock::held);
    for (u64 i = 0; i < count; i++) {
      const l2_entry old = load_entry(g(), slice, index + i);
      const auto change = change_of(request, old, first + i * g().cluster());
      if (!change)
        co_await fail(error_kind::unsupported, "a part of a compressed cluster cannot be zeroed");
      changes = changes || change->entry != old;
    }
  }
  if (!changes)
    co_return request.guest.length;

  co_await begin_metadata_change();
  co_await make_l2_writable(g().l1_index(at));
  const host_offset slice_at = slice_of(at);
  const std::span<std::byte> slice = co_await store_->load_l2(slice_at, metadata_lock::held);
  // Synchronous from here on. R3: the freed clusters stay counted until this slice is durable.
  for (u64 i = 0; i < count; i++) {
    const l2_entry old = load_entry(g(), slice, index + i);
    const auto change = change_of(request, old, first + i * g().cluster());
    BGFS_ASSERT(change.has_value(), "it was so a moment ago, and we hold the lock");
    store_entry(g(), slice, index + i, change->entry);
    if (change->effect == cluster_effect::freed)
      free_entry(old, request.reason);
    if (change->effect == cluster_effect::content_dropped)
      allocator_->discard_later({old.host().value >> g().cluster_bits, 1}, request.reason);
  }
  store_->l2_changed(slice_at);
  mapping_changed({first.value, count * g().cluster()});
  co_return request.guest.length;
}

} // namespace bgfs::qcow2
