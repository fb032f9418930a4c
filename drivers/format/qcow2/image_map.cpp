// SPDX-License-Identifier: MIT
// Where guest bytes live, and reading them.
#include "drivers/format/qcow2/decompress.h"
#include "drivers/format/qcow2/image.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/offload.h"
#include "graph/io/spawn.h"

#include <cstring>

namespace bgfs::qcow2 {

namespace {

// So much of the disk is looked up at once when it is read through: as much as a few requests take.
// More than one slice for small clusters only.
constexpr u64 read_ahead_bytes = 2 * MiB;

} // namespace

u64 image::slice_span() const {
  return store_->slice_bytes() / g().l2_entry_bytes() << g().cluster_bits;
}

u64 image::index_in_slice(guest_offset at) const {
  return g().l2_index(at) % (store_->slice_bytes() / g().l2_entry_bytes());
}

host_offset image::slice_of(const disk_state& disk, guest_offset at) const {
  const host_offset table((*disk.l1)[g().l1_index(at)] & entry_offset_mask);
  return table + align_down(g().l2_index(at) * g().l2_entry_bytes(), store_->slice_bytes());
}

std::optional<guest_run> image::lookup(const disk_state& disk, guest_offset at, u64 length,
                                       split_at split) {
  const std::vector<u64>& l1 = *disk.l1;
  const u64 l1_index = g().l1_index(at);
  const u64 end = at.value + length;
  const u64 table = l1_index < l1.size() ? l1[l1_index] & entry_offset_mask : 0;
  if (table == 0) { // the whole table is unallocated; so may its neighbours be
    u64 next = l1_index + 1;
    while (next < l1.size() && next * g().l2_span() < end && (l1[next] & entry_offset_mask) == 0)
      next++;
    const u64 run_end =
        next < l1.size() ? next * g().l2_span() : std::max(end, next * g().l2_span());
    return guest_run{.kind = subcluster_kind::unallocated, .length = run_end - at.value};
  }
  if (!is_aligned(table, g().cluster()))
    return guest_run{.kind = subcluster_kind::invalid, .length = 1};

  const auto slice = store_->cached_l2(slice_of(disk, at));
  if (!slice)
    return std::nullopt;
  const entry_rules r = rules();
  const u64 entries = slice->size() / g().l2_entry_bytes();
  u64 index = index_in_slice(at);
  auto sub = static_cast<unsigned>(at.within(g().cluster()) / g().subcluster());
  const l2_entry first = load_entry(g(), *slice, index);
  guest_run run{.kind = kind_at(first, at.aligned_down(g().cluster()), sub), .entry = first};
  run.is_copied = is_own(first);
  if (has_host(run.kind))
    run.host = first.host() + at.within(g().cluster());
  const bool is_single =
      run.kind == subcluster_kind::compressed || run.kind == subcluster_kind::invalid;
  u64 run_end = at.aligned_down(g().subcluster()).value;
  l2_entry entry = first;
  for (;;) {
    const unsigned same = same_kind_count(r, entry, sub);
    run_end += same * g().subcluster();
    if (is_single || sub + same != g().subclusters() || run_end >= end || ++index == entries)
      break;
    entry = load_entry(g(), *slice, index);
    sub = 0;
    if (kind_of(r, entry, 0) != run.kind)
      break;
    if (split == split_at::kind_and_copied && is_own(entry) != run.is_copied)
      break;
    if (has_host(run.kind) && entry.host().value != run.host.value + (run_end - at.value))
      break;
  }
  run.length = run_end - at.value;
  return run;
}

task<guest_run> image::find_run(disk_state disk, guest_offset at, u64 length, split_at split,
                                metadata_lock holds) {
  for (;;) {
    const std::optional<guest_run> known = lookup(disk, at, length, split);
    if (known) {
      if (known->kind == subcluster_kind::invalid)
        co_await report_invalid(disk, at, *known);
      co_return *known;
    }
    const host_offset slice = slice_of(disk, at);
    if (disk.snapshot != nullptr && slice.value + store_->slice_bytes() > file_.length())
      co_await fail(error_kind::corrupt_image,
                    "snapshot '{}': L2 table {} at {:#x} reaches beyond the end of the file at "
                    "{:#x}",
                    *disk.snapshot, g().l1_index(at),
                    (*disk.l1)[g().l1_index(at)] & entry_offset_mask, file_.length());
    // The L1 entry may have changed while the slice was being read, so everything is looked up
    // again.
    co_await load_slice(disk, at, holds);
  }
}

task<void> image::load_slice(disk_state disk, guest_offset at, metadata_lock holds) {
  const u64 begin = align_down(at.value, slice_span());
  const bool is_next = begin == next_slice_ && begin != 0;
  const u64 room = store_->l2_cache().page_count() / 4; // what others use stays
  // With the lock held somebody is writing, and loads what he needs.
  const u64 ahead = is_next && holds == metadata_lock::not_held
                        ? std::min(std::max<u64>(read_ahead_bytes / slice_span(), 1), room)
                        : 0;
  std::vector<task<void>> loads;
  next_slice_ = begin + slice_span();
  for (u64 i = 0; i < ahead && next_slice_ < disk.length; i++, next_slice_ += slice_span()) {
    const guest_offset next(next_slice_);
    const u64 l1_index = g().l1_index(next);
    const u64 table = l1_index < disk.l1->size() ? (*disk.l1)[l1_index] & entry_offset_mask : 0;
    if (table != 0 && is_aligned(table, g().cluster()))
      loads.push_back(store_->prefetch_l2(slice_of(disk, next)));
  }
  if (loads.empty()) {
    (void)co_await store_->load_l2(slice_of(disk, at), holds);
    co_return;
  }
  loads.push_back(load_wanted(slice_of(disk, at)));
  co_await when_all(std::move(loads));
}

task<void> image::load_wanted(host_offset slice) {
  (void)co_await store_->load_l2(slice, metadata_lock::not_held);
}

// What is wrong in a snapshot's tables does no harm to the live disk: only its own reader is told.
task<void> image::report_invalid(disk_state disk, guest_offset at, guest_run run) {
  const u64 l1_index = g().l1_index(at);
  const u64 table = (*disk.l1)[l1_index] & entry_offset_mask;
  const bool is_elsewhere = kind_of(rules(), run.entry, 0) != subcluster_kind::invalid;
  const std::string why =
      is_elsewhere ? fmt::format("it places data at {:#x} of the external data file, where other "
                                 "guest bytes are",
                                 run.entry.host().value)
                   : explain_invalid(rules(), run.entry);
  std::string what =
      is_aligned(table, g().cluster())
          ? fmt::format("the L2 entry of guest offset {:#x} (table {} at {:#x}, entry {}) is "
                        "invalid: {}",
                        at.value, l1_index, table, g().l2_index(at), why)
          : fmt::format("L2 table {} at {:#x} is not aligned to the cluster size {:#x}", l1_index,
                        table, g().cluster());
  if (disk.snapshot != nullptr)
    co_await fail(error_kind::corrupt_image, "snapshot '{}': {}", *disk.snapshot, what);
  co_await file_.corrupt(std::move(what));
}

task<void> image::check_entries(guest_offset first, u64 count) {
  const std::span<const std::byte> slice =
      co_await store_->load_l2(slice_of(first), metadata_lock::held);
  for (u64 i = 0; i < count; i++) {
    const l2_entry entry = load_entry(g(), slice, index_in_slice(first) + i);
    const guest_offset cluster = first + (i << g().cluster_bits);
    if (kind_at(entry, cluster, 0) == subcluster_kind::invalid)
      co_await report_invalid(cluster,
                              {.kind = subcluster_kind::invalid, .host = {}, .entry = entry});
  }
}

subcluster_kind image::kind_at(l2_entry entry, guest_offset cluster, unsigned sub) const {
  const subcluster_kind kind = kind_of(rules(), entry, sub);
  const bool is_elsewhere = header_.has_data_file() && kind != subcluster_kind::invalid &&
                            entry.has_cluster() && entry.host().value != cluster.value;
  return is_elsewhere ? subcluster_kind::invalid : kind;
}

// Data past the end of the file reads as zeroes: the last cluster of a file may be cut short, and
// preallocated clusters may never have been written.
extent image::to_extent(const disk_state& disk, guest_offset at, const guest_run& run) const {
  extent e;
  e.length = std::min(run.length, disk.length - at.value);
  if (has_host(run.kind) && !header_.is_encrypted()) { // else nothing is where anybody could use it
    if (header_.has_data_file() && !file_.has_data_file()) {
      e.kind = extent_kind::encoded; // so that reads end in an error
      return e;
    }
    e.where = &file_.data();
    e.offset = run.host.value;
  }
  switch (run.kind) {
  case subcluster_kind::unallocated:
  case subcluster_kind::unallocated_in_cluster:
    e.kind = extent_kind::unallocated;
    break;
  case subcluster_kind::zero:
  case subcluster_kind::zero_in_cluster:
    e.kind = extent_kind::zero;
    break;
  case subcluster_kind::compressed:
    e.kind = extent_kind::encoded;
    e.is_compressed = true;
    break;
  case subcluster_kind::normal: {
    if (header_.is_encrypted()) {
      e.kind = extent_kind::encoded;
      break;
    }
    const u64 file_length = file_.data_length();
    e.kind = run.host.value < file_length ? extent_kind::data : extent_kind::zero;
    e.is_unwritten = e.kind == extent_kind::zero;
    if (e.kind == extent_kind::data)
      e.length = std::min(e.length, file_length - run.host.value);
    e.is_recursive = may_be_preallocated_;
    break;
  }
  case subcluster_kind::invalid:
    BGFS_ASSERT(false, "an invalid run is reported before it gets here");
  }
  return e;
}

std::optional<extent> image::try_map(byte_range range) {
  const guest_offset at(range.offset);
  if (range.offset >= header_.disk_length)
    return extent{.kind = extent_kind::end};
  // Of an image that is written, what may be overwritten in place is told apart.
  const split_at split = request_.is_read_only ? split_at::kind : split_at::kind_and_copied;
  const std::optional<guest_run> run = lookup(live(), at, range.length, split);
  if (!run || run->kind == subcluster_kind::invalid)
    return std::nullopt;
  extent e = to_extent(live(), at, *run);
  // Behind the end of a file that is written, zeroes last until a write has lengthened it, be it
  // one of another cluster: too short to be kept by whoever asks here, and nobody would retire it
  // (L1).
  if (run->kind == subcluster_kind::normal && e.kind == extent_kind::zero && !request_.is_read_only)
    return std::nullopt;
  e.may_overwrite = e.kind == extent_kind::data && run->is_copied && is_prepared_;
  return e;
}

task<extent> image::map(byte_range range) {
  const guest_offset at(range.offset);
  if (range.offset >= header_.disk_length)
    co_return extent{.kind = extent_kind::end};
  const guest_run run =
      co_await find_run(live(), at, range.length, split_at::kind, metadata_lock::not_held);
  co_return to_extent(live(), at, run);
}

// What a cluster holds of the guest's bytes. Everything that is not compressed goes through here.
task<void> image::read_stored(guest_offset at, host_offset host, std::span<std::byte> bytes) {
  return header_.is_encrypted() ? read_encrypted(at, host, bytes) : file_.read_data(host, bytes);
}

task<void> image::read(u64 offset, std::span<std::byte> bytes) {
  co_await read_guest(live(), guest_offset(offset), bytes);
}

task<void> image::read_guest(disk_state disk, guest_offset at, std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const guest_run run =
        co_await find_run(disk, at, bytes.size(), split_at::kind, metadata_lock::not_held);
    if (run.kind == subcluster_kind::compressed && inflated_.is_loading(run.entry)) {
      co_await inflated_.changed(); // and looks again: the cluster may have been freed (Q9)
      continue;
    }
    const auto part = bytes.first(std::min<u64>(run.length, bytes.size()));
    switch (run.kind) {
    case subcluster_kind::normal:
      if (file_.tells())
        co_await file_.tell(debug_event::read_aio);
      co_await read_stored(at, run.host, part);
      break;
    case subcluster_kind::zero:
    case subcluster_kind::zero_in_cluster:
      std::memset(part.data(), 0, part.size());
      break;
    case subcluster_kind::unallocated:
    case subcluster_kind::unallocated_in_cluster:
      if (disk.shows_backing) {
        co_await read_backing(at, part);
      } else {
        std::memset(part.data(), 0, part.size());
      }
      break;
    case subcluster_kind::compressed:
      co_await context(read_compressed(run.entry, at.within(g().cluster()), part),
                       "reading the compressed cluster at guest offset {:#x}",
                       at.aligned_down(g().cluster()).value);
      break;
    case subcluster_kind::invalid:
      BGFS_ASSERT(false, "an invalid run is reported before it gets here");
    }
    bytes = bytes.subspan(part.size());
    at += part.size();
  }
}

u64 image::backing_length() const {
  return backing_ == nullptr ? 0 : backing_->length();
}

bool image::may_have_backing() const {
  return backing_ != nullptr || !header_.backing_file.empty();
}

task<void> image::read_backing(guest_offset at, std::span<std::byte> bytes) {
  const u64 below = backing_length();
  const u64 inside = at.value >= below ? 0 : std::min<u64>(bytes.size(), below - at.value);
  std::memset(bytes.data() + inside, 0, bytes.size() - inside);
  if (inside == 0)
    co_return;
  if (file_.tells())
    co_await file_.tell(debug_event::read_backing_aio);
  co_await backing_->read(at.value, bytes.first(inside));
}

task<void> image::read_compressed(l2_entry entry, u64 within, std::span<std::byte> bytes) {
  if (const auto known = inflated_.find(entry)) {
    std::memcpy(bytes.data(), known->data() + within, bytes.size());
    co_return;
  }
  if (within == 0 && bytes.size() == g().cluster()) { // nothing is left for another read
    co_await inflate(entry, bytes);
    co_return;
  }
  // If the cluster is freed meanwhile, its bytes stay where they are for us (Q6), and nobody else
  // gets to see them (Q9).
  inflated_cache::loading cluster = inflated_.begin(g(), entry, home_->buffers());
  co_await inflate(entry, cluster.bytes());
  std::memcpy(bytes.data(), cluster.bytes().data() + within, bytes.size());
  cluster.publish();
}

task<void> image::inflate(l2_entry entry, std::span<std::byte> cluster) {
  const byte_range host = compressed_range(g(), entry);
  if (host.offset >= file_.length())
    co_await fail(error_kind::corrupt_image,
                  "its data at {:#x} lies beyond the end of the file at {:#x}", host.offset,
                  file_.length());
  // At most two clusters (spec: the count of sectors has cluster_bits - 8 bits).
  const buffer stream = home_->buffers().allocate(host.length);
  if (file_.tells())
    co_await file_.tell(debug_event::read_compressed);
  co_await file_.read_data(host_offset(host.offset), stream.bytes());
  const compression_type type = header_.compression;
  result<> done = co_await offload([&] { return decompress(type, stream.bytes(), cluster); });
  co_await std::move(done);
}

task<bool> image::reads_as_zero(byte_range guest, zero_because why) {
  const u64 end = guest.end();
  guest_offset at(guest.offset);
  while (at.value < end) {
    const guest_run run =
        co_await find_run(live(), at, end - at.value, split_at::kind, metadata_lock::not_held);
    if (is_unallocated(run.kind)) {
      const bool is_hidden =
          why == zero_because::backing_ends ? at.value >= backing_length() : !may_have_backing();
      if (!is_hidden)
        co_return false;
    } else if (!is_zero(run.kind)) {
      co_return false;
    }
    at += run.length;
  }
  co_return true;
}

} // namespace bgfs::qcow2
