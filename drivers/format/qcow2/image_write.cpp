// SPDX-License-Identifier: MIT
// Writing guest data. In place where the cluster is ours alone; otherwise in three steps:
//   1. with the lock: choose clusters, raise their refcounts, join allocations_ (plan_write);
//   2. without it: write the data, with what has to be copied around it (write_plan_data);
//   3. with the lock: enter the clusters into the L2 table (link_plan).
// If we stop before 3 is on the disk, the old content is still in force and the clusters leak.
//
// Where the guest had zeroes and the new clusters were never written, 3 comes before 2, in one step
// with 1: whether the table refers to them already or not, the guest reads zeroes until its data
// are there. Whoever writes beside us into such a cluster finds it linked, and waits for nobody.
#include "drivers/format/qcow2/image.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/spawn.h"

#include <bit>
#include <cstring>

namespace bgfs::qcow2 {

namespace {

// Up to so many copied bytes are merged with the data into one write; beyond, they go alone.
constexpr u64 merged_copies_max = 256 * KiB;

} // namespace

// What a cluster holds of the guest's bytes. Everything that is not compressed goes through here.
task<void> image::write_stored(guest_offset at, host_offset host, write_content data) {
  if (data.is_in_file())
    return file_.copy_data(host, data.source());
  return header_.is_encrypted() ? write_encrypted(at, host, data.bytes())
                                : file_.write_data(host, data.bytes());
}

task<void> image::write_stored_zeroes(guest_offset at, host_offset host, u64 length) {
  return header_.is_encrypted() ? write_encrypted_zeroes(at, host, length)
                                : file_.write_zeroes({host.value, length}, 0);
}

task<void> image::write(u64 offset, std::span<const std::byte> bytes, write_flags flags) {
  (void)flags; // none is supported, so none is passed
  return write_guest(guest_offset(offset), bytes);
}

// The file below is asked to copy into a cluster what it would be asked to write there.
task<void> image::copy_from(bytes_of_file source, u64 to_offset) {
  if (header_.is_encrypted())
    co_await fail(error_kind::unsupported, "what is encrypted cannot be copied by the host");
  co_await write_guest(guest_offset(to_offset), source);
}

task<void> image::write_guest(guest_offset at, write_content data) {
  if (!is_prepared_)
    co_await shielded(prepare_to_write());
  while (!data.is_empty()) {
    const std::optional<guest_run> run = lookup(at, data.size(), split_at::kind_and_copied);
    if (run && run->kind == subcluster_kind::normal && run->is_copied) {
      // In place. Should the cluster be freed while we write, nobody gets it before we have ended
      // (Q6), because the node's request that we serve is still on its list.
      const u64 length = std::min<u64>(run->length, data.size());
      if (file_.tells()) [[unlikely]]
        co_await file_.tell(debug_event::write_aio);
      co_await write_stored(at, run->host, data.first(length));
      at += length;
      data = data.from(length);
      continue;
    }
    // Interrupting it half-way would leak clusters and leave others waiting.
    const u64 done = co_await shielded(write_slowly(at, data));
    at += done;
    data = data.from(done);
  }
}

// Writes the first bytes, as many as one plan covers; 0 when somebody else had to end first.
task<u64> image::write_slowly(guest_offset at, write_content data) {
  async_mutex::guard lock = co_await store_->lock().lock();
  const byte_range clusters = byte_range{at.value, data.size()}.widened_to(g().cluster());
  if (const auto conflict = allocations_.first_conflict(clusters)) {
    if (*conflict < align_down(at.value, g().cluster()) + g().cluster()) {
      lock.unlock();
      co_await allocations_.ended();
      co_return 0;
    }
    data = data.first(*conflict - at.value); // up to what is in flight
  }
  if (allocator_->has_many_frees() && allocator_->has_ready_frees())
    co_await write_back_locked();
  const std::optional<write_plan> plan = co_await plan_write(at, data);
  if (!plan)
    co_return 0; // somebody has just made it writable in place
  if (plan->is_fresh) {
    co_await link_then_write(*plan, std::move(lock));
  } else {
    co_await write_then_link(*plan, std::move(lock));
  }
  co_return plan->data.size();
}

// The guest had zeroes here and the clusters read as zeroes (see above). If we stop after the link,
// even on the disk, the guest has zeroes as before: the data need not be durable before it (R2),
// and a write that fails leaves what any failed write in place leaves.
task<void> image::link_then_write(const write_plan& plan, async_mutex::guard lock) {
  result<> linked = co_await as_result(link_plan(plan));
  if (!linked) {
    co_await give_back(plan);
    co_await fail(std::move(linked).error());
  }
  lock.unlock();
  if (file_.tells())
    co_await file_.tell(debug_event::write_aio);
  // In place from here on: Q6 keeps the clusters for us should they be freed.
  const u64 within = plan.at.within(g().cluster());
  result<> written =
      co_await as_result(write_stored(plan.at, plan.clusters.offset(g()) + within, plan.data));
  if (written)
    co_return;
  // The clusters stay where they are. On a full disk there are none behind the end of the file yet,
  // but to lengthen that takes no space.
  co_await file_.lengthen_to(plan.clusters.bytes(g()).end());
  co_await std::move(written);
}

task<void> image::write_then_link(const write_plan& plan, async_mutex::guard lock) {
  const allocation_list::member member(
      allocations_, byte_range{plan.at.value, plan.data.size()}.widened_to(g().cluster()));
  lock.unlock();
  result<> written = co_await as_result(write_plan_data(plan));
  async_mutex::guard again = co_await store_->lock().lock();
  lock = std::move(again);
  if (written)
    written = co_await as_result(link_plan(plan));
  if (!written) {
    co_await give_back(plan);
    co_await fail(std::move(written).error());
  }
}

// Nothing refers to the new clusters. If they cannot be given back they leak.
task<void> image::give_back(const write_plan& plan) {
  if (plan.is_taken && !file_.is_stopped())
    (void)co_await as_result(allocator_->free_unlinked(plan.clusters));
}

// Whether the guest reads zeroes in the whole cluster, as far as the entry and the backing's length
// say so.
bool image::reads_as_zero(l2_entry entry, guest_offset cluster) const {
  const entry_rules r = rules();
  for (unsigned sub = 0; sub < g().subclusters(); sub += same_kind_count(r, entry, sub)) {
    const subcluster_kind kind = kind_of(r, entry, sub);
    const bool shows_backing =
        is_unallocated(kind) && cluster.value + sub * g().subcluster() < backing_length();
    if (shows_backing || (!is_unallocated(kind) && !is_zero(kind)))
      return false;
  }
  return true;
}

// What has to be written so that every subcluster the data touches is complete.
byte_range image::with_copies(const geometry& geo, byte_range guest, l2_entry first, l2_entry last,
                              bool is_in_place) const {
  const entry_rules r = rules();
  // A cluster that moves takes its data along; one that stays, or holds no data, does not.
  const auto moves_data = [&](l2_entry e) {
    if (is_in_place)
      return false;
    if (e.is_compressed())
      return true;
    return geo.is_extended ? (e.bitmap & all_allocated) != 0
                           : kind_of(r, e, 0) == subcluster_kind::normal;
  };
  const auto is_complete = [&](l2_entry e, u64 at) {
    const auto sub = static_cast<unsigned>(at % geo.cluster() / geo.subcluster());
    return is_in_place && kind_of(r, e, sub) == subcluster_kind::normal;
  };
  // The subclusters in front of, and behind, its data stay as they are.
  const auto is_partial = [&](l2_entry e) { return geo.is_extended && !e.is_compressed(); };
  const auto allocated = [](l2_entry e) { return static_cast<u32>(e.bitmap & all_allocated); };
  u64 begin = guest.offset;
  if (moves_data(first)) {
    const u64 spared = is_partial(first) ? static_cast<u64>(std::countr_zero(allocated(first))) : 0;
    begin = std::min(align_down(begin, geo.subcluster()),
                     align_down(begin, geo.cluster()) + spared * geo.subcluster());
  } else if (!is_complete(first, begin)) {
    begin = align_down(begin, geo.subcluster());
  }
  u64 end = guest.end();
  if (moves_data(last)) {
    const u64 spared = is_partial(last) ? static_cast<u64>(std::countl_zero(allocated(last))) : 0;
    end = std::max(align_up(end, geo.subcluster()),
                   align_up(end, geo.cluster()) - spared * geo.subcluster());
  } else if (!is_complete(last, end - 1)) {
    end = align_up(end, geo.subcluster());
  }
  return byte_range::between(begin, end);
}

task<std::optional<image::write_plan>> image::plan_write(guest_offset at, write_content data) {
  co_await begin_metadata_change();
  co_await make_l2_writable(g().l1_index(at));
  // Checks the entry on the way: an invalid one ends here.
  const guest_run run =
      co_await find_run(at, data.size(), split_at::kind_and_copied, metadata_lock::held);
  if (run.kind == subcluster_kind::normal && run.is_copied)
    co_return std::nullopt;
  const std::span<const std::byte> slice =
      co_await store_->load_l2(slice_of(at), metadata_lock::held);
  const u64 index = index_in_slice(at);
  const u64 within = at.within(g().cluster());
  const u64 wanted = std::min(divide_up(within + data.size(), g().cluster()),
                              slice.size() / g().l2_entry_bytes() - index);
  const auto is_writable = [this](l2_entry e) { return e.has_cluster() && is_own(e); };
  const l2_entry first = load_entry(g(), slice, index);
  write_plan plan{.at = at, .data = data, .is_in_place = is_writable(first)};
  const guest_offset cluster = at.aligned_down(g().cluster());
  const bool reads_zero = reads_as_zero(first, cluster);
  l2_entry last = first;
  u64 count = 1;
  for (; count < wanted; count++) {
    const l2_entry next = load_entry(g(), slice, index + count);
    if (is_writable(next) != plan.is_in_place ||
        kind_at(next, cluster + count * g().cluster(), 0) == subcluster_kind::invalid ||
        (plan.is_in_place && next.host() != last.host() + g().cluster()) ||
        reads_as_zero(next, cluster + count * g().cluster()) != reads_zero)
      break;
    last = next;
  }
  if (plan.is_in_place) {
    plan.clusters = {first.host().value >> g().cluster_bits, count};
    allocator_->keep_content(plan.clusters);
  } else if (header_.has_data_file()) {
    plan.clusters = place_in_data_file(cluster, count);
    allocator_->keep_content(plan.clusters);
  } else {
    const new_clusters taken = co_await allocator_->allocate(count);
    plan.clusters = taken.run;
    plan.is_taken = true;
    // Decrypted, zeroes of the file are anything.
    plan.reads_zero = taken.reads_zero && !header_.is_encrypted();
    plan.is_fresh = plan.reads_zero && reads_zero;
    if (taken.run.count < count) { // should this load fail, the clusters leak
      const std::span<const std::byte> again =
          co_await store_->load_l2(slice_of(at), metadata_lock::held);
      last = load_entry(g(), again, index + taken.run.count - 1);
    }
  }
  plan.data = data.first(std::min<u64>(data.size(), plan.clusters.count * g().cluster() - within));
  plan.written = with_copies(g(), {at.value, plan.data.size()}, first, last, plan.is_in_place);
  if (header_.has_data_file()) // which ends where the disk ends
    plan.written =
        plan.written.intersection({0, std::max(header_.disk_length, at.value + plan.data.size())});
  co_return plan;
}

task<void> image::write_plan_data(const write_plan& plan) {
  const byte_range guest{plan.at.value, plan.data.size()};
  const byte_range head = byte_range::between(plan.written.offset, guest.offset);
  const byte_range tail = byte_range::between(guest.end(), plan.written.end());
  bool needs_head = !head.is_empty();
  bool needs_tail = !tail.is_empty();
  if (plan.reads_zero) { // then what reads as zeroes need not be written
    if (needs_head) {
      const bool is_zero_already = co_await reads_as_zero(head);
      needs_head = !is_zero_already;
    }
    if (needs_tail) {
      const bool is_zero_already = co_await reads_as_zero(tail);
      needs_tail = !is_zero_already;
    }
  }
  if ((needs_head || needs_tail) && head.length + tail.length <= merged_copies_max &&
      !plan.data.is_in_file()) {
    co_await write_merged(plan);
    co_return;
  }
  if (needs_head)
    co_await write_edge(head, plan);
  const u64 base = align_down(plan.at.value, g().cluster());
  if (file_.tells())
    co_await file_.tell(debug_event::write_aio);
  co_await write_stored(plan.at, plan.clusters.offset(g()) + (plan.at.value - base), plan.data);
  if (needs_tail)
    co_await write_edge(tail, plan);
}

task<void> image::write_edge(byte_range guest, const write_plan& plan) {
  const u64 base = align_down(plan.at.value, g().cluster());
  host_offset to = plan.clusters.offset(g()) + (guest.offset - base);
  const bool zero = co_await reads_as_zero(guest);
  if (zero) {
    if (file_.tells())
      co_await file_.tell(debug_event::cluster_alloc_space);
    co_await write_stored_zeroes(guest_offset(guest.offset), to, guest.length);
    co_return;
  }
  const buffer copy = home_->buffers().allocate(guest.length); // at most a cluster
  if (file_.tells())
    co_await file_.tell(debug_event::cow_read);
  co_await read_guest(guest_offset(guest.offset), copy.bytes());
  if (file_.tells())
    co_await file_.tell(debug_event::cow_write);
  co_await write_stored(guest_offset(guest.offset), to, copy.bytes());
}

task<void> image::write_merged(const write_plan& plan) {
  const u64 base = align_down(plan.at.value, g().cluster());
  const buffer whole = home_->buffers().allocate(plan.written.length);
  const u64 before = plan.at.value - plan.written.offset;
  co_await read_around(plan, whole.bytes());
  std::memcpy(whole.data() + before, plan.data.bytes().data(), plan.data.size());
  if (file_.tells()) { // one write for both
    co_await file_.tell(debug_event::write_aio);
    co_await file_.tell(debug_event::cow_write);
  }
  co_await write_stored(guest_offset(plan.written.offset),
                        plan.clusters.offset(g()) + (plan.written.offset - base), whole.bytes());
}

// What is copied around the data. One read over all of it is shorter than two, where what it reads
// for nothing is no more than what is needed; but bytes that are overwritten need not be readable.
task<void> image::read_around(const write_plan& plan, std::span<std::byte> whole) {
  const u64 before = plan.at.value - plan.written.offset;
  const u64 after = before + plan.data.size();
  if (file_.tells())
    co_await file_.tell(debug_event::cow_read);
  if (before > 0 && after < whole.size() && plan.data.size() <= whole.size() / 2) {
    const result<> read = co_await as_result(read_guest(guest_offset(plan.written.offset), whole));
    if (read)
      co_return;
  }
  if (before > 0)
    co_await read_guest(guest_offset(plan.written.offset), whole.first(before));
  if (before > 0 && after < whole.size() && file_.tells())
    co_await file_.tell(debug_event::cow_read);
  if (after < whole.size())
    co_await read_guest(plan.at + plan.data.size(), whole.subspan(after));
}

void image::free_entry(l2_entry entry, free_reason reason) {
  if (entry.is_compressed()) {
    const byte_range host = compressed_range(g(), entry);
    inflated_.forget(host); // Q9
    allocator_->free_later(clusters_of(g(), host), reason);
  } else if (entry.has_cluster() && header_.has_data_file()) {
    allocator_->discard_later({entry.host().value >> g().cluster_bits, 1}, reason);
  } else if (entry.has_cluster()) {
    allocator_->free_later({entry.host().value >> g().cluster_bits, 1}, reason);
  }
}

// One synchronous step over one slice: after the load nobody sees a part of it. R1 and R2 are the
// store's: it writes the refcounts and flushes the data before it writes this slice.
task<void> image::link_plan(const write_plan& plan) {
  const host_offset slice_at = slice_of(plan.at);
  const std::span<std::byte> slice = co_await store_->load_l2(slice_at, metadata_lock::held);
  const u64 base = align_down(plan.at.value, g().cluster());
  const u64 index = index_in_slice(plan.at);
  for (u64 i = 0; i < plan.clusters.count; i++) {
    const byte_range cluster{base + i * g().cluster(), g().cluster()};
    const byte_range written = plan.written.intersection(cluster);
    const l2_entry old = load_entry(g(), slice, index + i);
    const host_offset host = plan.clusters.offset(g()) + i * g().cluster();
    l2_entry now{host.value | entry_copied, 0};
    if (g().is_extended) {
      const auto first =
          static_cast<unsigned>((written.offset - cluster.offset) / g().subcluster());
      const auto count = static_cast<unsigned>(
          divide_up(written.end() - cluster.offset, g().subcluster()) - first);
      now.bitmap = old.is_compressed() ? 0 : old.bitmap;
      now.bitmap &= ~zero_bits(first, count);
      now.bitmap |= allocated_bits(first, count);
    }
    store_entry(g(), slice, index + i, now);
    if (!plan.is_in_place)
      free_entry(old, free_reason::rewrite);
  }
  store_->l2_changed(slice_at);
  store_->needs_flush();
  mapping_changed({base, plan.clusters.count * g().cluster()});
}

void image::mapping_changed(byte_range guest) {
  if (request_.self != nullptr)
    request_.self->mapping_changed(guest);
}

// R5. The table of `l1_index` exists and is nobody else's.
task<void> image::make_l2_writable(u64 l1_index) {
  if (l1_index >= l1_.size())
    co_await file_.corrupt(fmt::format("the L1 table has {} entries, too few for a write to table "
                                       "{}",
                                       l1_.size(), l1_index));
  const u64 entry = l1_[l1_index];
  const host_offset old(entry & entry_offset_mask);
  if (!old.is_aligned_to(g().cluster()))
    co_await file_.corrupt(fmt::format("L2 table {} at {:#x} is not aligned to the cluster size "
                                       "{:#x}",
                                       l1_index, old.value, g().cluster()));
  if (old.value != 0 && (entry & entry_copied) != 0)
    co_return;
  std::vector<std::byte> bytes = co_await copy_l2(old);
  const new_clusters place = co_await allocator_->allocate(1);
  bool is_unknown = false;
  result<> installed =
      co_await as_result(install_l2(l1_index, place, std::move(bytes), is_unknown));
  if (!installed) {
    // If the L1 write itself failed, the disk may refer to the new table: it must not be reused.
    if (!is_unknown && !file_.is_stopped())
      (void)co_await as_result(allocator_->free_unlinked(place.run));
    co_await fail(std::move(installed).error());
  }
  if (old.value != 0) {
    file_.overlaps().remove(metadata_kind::active_l2, {old.value, g().cluster()});
    allocator_->free_later({old.value >> g().cluster_bits, 1}, free_reason::other);
  }
}

// The content of an L2 table, zeroes for the table at 0.
task<std::vector<std::byte>> image::copy_l2(host_offset table) {
  std::vector<std::byte> bytes(g().cluster());
  if (table.value == 0)
    co_return bytes;
  if (file_.tells())
    co_await file_.tell(debug_event::l2_alloc_cow_read);
  const u64 step = store_->slice_bytes();
  for (u64 at = 0; at < bytes.size(); at += step) {
    const std::span<const std::byte> slice =
        co_await store_->load_l2(table + at, metadata_lock::held);
    std::memcpy(bytes.data() + at, slice.data(), step);
  }
  co_return bytes;
}

task<void> image::install_l2(u64 l1_index, new_clusters place, std::vector<std::byte> bytes,
                             bool& is_unknown) {
  const host_offset at = place.run.offset(g());
  store_->forget(place.run.bytes(g()));
  if (file_.tells()) {
    co_await file_.tell(debug_event::l2_alloc_write);
    co_await file_.tell(debug_event::l2_update); // as of every table
  }
  co_await file_.write_structure(at, bytes, metadata_kind::active_l2);
  if (!is_lazy_)
    co_await store_->write_refcounts();
  // If we stop here, the cluster holds a table that nothing refers to. After the flush it is there
  // and counted, and the L1 entry may refer to it.
  co_await store_->flush_file();
  if (file_.tells())
    co_await file_.tell(debug_event::l1_update);
  is_unknown = true;
  co_await write_l1_entry(l1_index, at.value | entry_copied);
  is_unknown = false;
  file_.overlaps().add(metadata_kind::active_l2, {at.value, g().cluster()});
}

task<void> image::write_l1_entry(u64 l1_index, u64 entry) {
  std::array<std::byte, 8> bytes;
  store(std::span<std::byte>(bytes), be64(entry));
  co_await file_.write_structure(header_.l1 + l1_index * 8, bytes, metadata_kind::active_l1);
  l1_[l1_index] = entry;
}

task<void> image::write_back_locked() {
  co_await store_->write_tables(!is_lazy_);
  if (!allocator_->has_ready_frees())
    co_return;
  // R3. If we stop before this flush, the freed clusters may still be referred to on the disk, and
  // they are still counted. After it nothing refers to them.
  co_await file_.flush();
  co_await allocator_->apply_frees();
  if (!is_lazy_)
    co_await store_->write_refcounts();
  if (has_shrunk_ && !allocator_->has_frees()) {
    has_shrunk_ = false;
    co_await trim_file();
  }
}

task<void> image::write_back() {
  if (request_.is_read_only || (!store_->has_changes() && !allocator_->has_frees()))
    co_return;
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await shielded(write_back_locked());
}

task<void> image::flush_to_disk() {
  co_return;
} // the file is flushed as our child

} // namespace bgfs::qcow2
