// SPDX-License-Identifier: MIT
// The state of a machine, kept behind the disk as if that were longer (spec, "Snapshots", bytes 32
// to 35): from the first guest offset on that an L1 entry of its own describes.
#include "drivers/format/qcow2/image.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/spawn.h"

#include <cstring>

namespace bgfs::qcow2 {

u64 image::vmstate_offset(u64 disk_length) const {
  return g().l1_entries_for(disk_length) * g().l2_span();
}

task<void> image::read_vmstate(u64 position, std::span<std::byte> bytes) {
  if (file_.tells())
    co_await file_.tell(debug_event::vmstate_load);
  co_await read_vmstate_of(live(), position, bytes);
}

// No backing file has any of it. Of an encrypted image whole sectors are read.
task<void> image::read_vmstate_of(disk_state disk, u64 position, std::span<std::byte> bytes) {
  disk.shows_backing = false;
  const u64 unit = header_.is_encrypted() ? crypt::sector_length : 1;
  guest_offset at(vmstate_offset(disk.length) + position);
  while (!bytes.empty()) {
    const u64 within = at.within(unit);
    const bool is_whole = within == 0 && bytes.size() >= unit;
    const u64 length =
        is_whole ? align_down(bytes.size(), unit) : std::min<u64>(bytes.size(), unit - within);
    const auto part = bytes.first(length);
    if (is_whole) {
      co_await read_guest(disk, at, part);
    } else {
      std::array<std::byte, crypt::sector_length> sector;
      co_await read_guest(disk, at.aligned_down(unit), sector);
      std::memcpy(part.data(), sector.data() + within, length);
    }
    at += length;
    bytes = bytes.subspan(length);
  }
}

// Whole clusters, so that nothing is copied around the bytes from a longer backing file.
task<void> image::write_vmstate(u64 position, std::span<const std::byte> bytes) {
  if (bytes.empty())
    co_return;
  const u64 end = vmstate_offset(header_.disk_length) + position + bytes.size();
  const u64 entries = g().l1_entries_for(end);
  if (entries * 8 > l1_bytes_max)
    co_await fail(error_kind::no_space,
                  "the state of a machine up to {:#x} does not fit behind a disk of {:#x} bytes: "
                  "the L1 table would have {} entries, more than {}",
                  position + bytes.size(), header_.disk_length, entries, l1_bytes_max / 8);
  if (file_.tells())
    co_await file_.tell(debug_event::vmstate_save);
  co_await shielded(make_vmstate_room(entries));
  while (!bytes.empty()) {
    const u64 length = std::min<u64>(bytes.size(), g().cluster() - position % g().cluster());
    co_await write_vmstate_cluster(position, bytes.first(length));
    position += length;
    bytes = bytes.subspan(length);
  }
}

task<void> image::make_vmstate_room(u64 entries) {
  const async_mutex::guard lock = co_await store_->lock().lock();
  co_await begin_metadata_change();
  if (entries > l1_.size())
    co_await context(grow_l1(entries), "growing the L1 table");
}

task<void> image::write_vmstate_cluster(u64 position, std::span<const std::byte> bytes) {
  const u64 first = align_down(position, g().cluster());
  const buffer whole = home_->buffers().allocate(g().cluster());
  if (bytes.size() < g().cluster())
    co_await read_vmstate_of(live(), first, whole.bytes());
  std::memcpy(whole.data() + (position - first), bytes.data(), bytes.size());
  const guest_offset at(vmstate_offset(header_.disk_length) + first);
  for (u64 done = 0; done < g().cluster();) {
    const auto rest = whole.bytes().subspan(done);
    const std::optional<guest_run> run = lookup(at + done, rest.size(), split_at::kind_and_copied);
    if (run && run->kind == subcluster_kind::normal && run->is_copied) {
      const u64 length = std::min<u64>(run->length, rest.size());
      if (file_.tells())
        co_await file_.tell(debug_event::write_aio);
      co_await write_stored(at + done, run->host, rest.first(length));
      done += length;
    } else {
      const u64 length = co_await shielded(write_slowly(at + done, rest));
      done += length;
    }
  }
}

} // namespace bgfs::qcow2
