// SPDX-License-Identifier: MIT
// Compressed writes (spec, "Compressed Clusters Descriptor"). Several clusters are compressed side
// by side and packed byte behind byte, also across a cluster boundary. The host clusters they lie
// in are counted once for each of them.
//
// Nothing is overwritten: a cluster always gets a new place, in the three steps of image_write.cpp.
// If we stop before the last, the old content is in force and bytes are lost to nobody, which is a
// leak. A host cluster that is written to holds streams that the disk refers to, but never in the
// same bytes; a sector that has some of both is written with those that are there already.
#include "drivers/format/qcow2/compress.h"
#include "drivers/format/qcow2/image.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/offload.h"
#include "graph/io/spawn.h"

#include <cstring>

namespace bgfs::qcow2 {

namespace {

// So much of a write is compressed side by side before it goes out, in pieces that are worth a trip
// to another thread; at least one cluster.
constexpr u64 batch_bytes = 2 * MiB;
constexpr u64 piece_bytes = 128 * KiB;

} // namespace

// Guest clusters and what they became: stream i at i clusters, and not longer than that.
struct image::compressed_batch {
  guest_offset at;
  std::span<const std::byte> data; // the guest's; the last cluster of the disk may be cut short
  buffer streams;
  std::vector<u64> lengths; // 0: does not become smaller
};

// Streams one behind the other, of guest clusters one behind the other.
struct image::packed_streams {
  guest_offset at;
  std::span<const u64> lengths;
  std::span<const std::byte> bytes;
};

result<> image::check_compressible(byte_range guest) const {
  if (header_.is_encrypted())
    return fail(error_kind::unsupported,
                "an encrypted image cannot have compressed clusters: they would not be encrypted");
  if (header_.has_data_file())
    return fail(error_kind::unsupported,
                "an image with an external data file cannot have compressed clusters: every "
                "cluster has its own place there");
  const bool reaches_end = guest.end() == header_.disk_length;
  if (!is_aligned(guest.offset, g().cluster()) ||
      (!is_aligned(guest.end(), g().cluster()) && !reaches_end))
    return fail(error_kind::invalid_argument,
                "{:#x} bytes at {:#x} cannot be compressed: they are not whole clusters of {:#x} "
                "bytes",
                guest.length, guest.offset, g().cluster());
  return {};
}

task<void> image::write_compressed(u64 offset, std::span<const std::byte> bytes) {
  co_await check_compressible({offset, bytes.size()});
  if (!is_prepared_)
    co_await shielded(prepare_to_write());
  has_compressed_ = true;
  while (!bytes.empty()) {
    const u64 length = std::min<u64>(bytes.size(), std::max(batch_bytes, g().cluster()));
    compressed_batch batch{.at = guest_offset(offset), .data = bytes.first(length)};
    co_await compress(batch);
    co_await store_batch(batch);
    offset += length;
    bytes = bytes.subspan(length);
  }
}

task<void> image::compress(compressed_batch& batch) {
  batch.lengths.resize(divide_up(batch.data.size(), g().cluster()));
  batch.streams = home_->buffers().allocate(batch.lengths.size() << g().cluster_bits);
  const u64 step = std::max<u64>(piece_bytes >> g().cluster_bits, 1);
  std::vector<task<void>> pieces;
  for (u64 first = 0; first < batch.lengths.size(); first += step)
    pieces.push_back(
        compress_some(batch, first, std::min<u64>(batch.lengths.size(), first + step)));
  co_await when_all(std::move(pieces));
}

task<void> image::compress_some(compressed_batch& batch, u64 first, u64 end) {
  const geometry geo = g();
  const compression_type type = header_.compression;
  const bool has_memory = co_await offload([&batch, geo, type, first, end] {
    const std::unique_ptr<compressor> made = compressor::make(type);
    if (made == nullptr)
      return false;
    std::vector<std::byte> padded;
    for (u64 i = first; i < end; i++) {
      const u64 from = i << geo.cluster_bits;
      std::span<const std::byte> cluster = batch.data.subspan(from);
      if (cluster.size() < geo.cluster()) { // what lies behind the end of the disk is zeroes
        padded.assign(cluster.begin(), cluster.end());
        padded.resize(geo.cluster());
        cluster = padded;
      }
      batch.lengths[i] = made->compress(cluster.first(geo.cluster()),
                                        batch.streams.bytes().subspan(from, geo.cluster() - 1));
    }
    return true;
  });
  if (!has_memory)
    co_await fail(error_kind::io, "there is no memory to compress with");
}

// In the order of the guest, so that they are read in the order of the file.
task<void> image::store_batch(compressed_batch& batch) {
  const std::span<const u64> lengths = batch.lengths;
  for (u64 i = 0; i < lengths.size();) {
    u64 end = i + 1;
    while (end < lengths.size() && (lengths[end] == 0) == (lengths[i] == 0))
      end++;
    const u64 from = i << g().cluster_bits;
    const u64 to = std::min<u64>(end << g().cluster_bits, batch.data.size());
    if (lengths[i] == 0) {
      co_await write(batch.at.value + from, batch.data.subspan(from, to - from), 0);
    } else {
      co_await store_streams(pack(batch, i, end));
    }
    i = end;
  }
}

image::packed_streams image::pack(compressed_batch& batch, u64 first, u64 end) const {
  const std::span<std::byte> room = batch.streams.bytes().subspan(first << g().cluster_bits);
  u64 length = 0;
  for (u64 i = first; i < end; i++) {
    std::memmove(room.data() + length, room.data() + ((i - first) << g().cluster_bits),
                 batch.lengths[i]);
    length += batch.lengths[i];
  }
  return {batch.at + (first << g().cluster_bits),
          std::span(batch.lengths).subspan(first, end - first), room.first(length)};
}

task<void> image::store_streams(packed_streams streams) {
  while (!streams.lengths.empty()) {
    const u64 done = co_await shielded(store_some(streams));
    for (const u64 length : streams.lengths.first(done))
      streams.bytes = streams.bytes.subspan(length);
    streams.lengths = streams.lengths.subspan(done);
    streams.at += done << g().cluster_bits;
  }
}

// The first streams, at most those of one slice; 0 when a write in flight had to end first.
task<u64> image::store_some(packed_streams streams) {
  async_mutex::guard lock = co_await store_->lock().lock();
  const u64 slice_end = align_down(streams.at.value, slice_span()) + slice_span();
  u64 end = std::min(streams.at.value + (streams.lengths.size() << g().cluster_bits), slice_end);
  if (const auto conflict =
          allocations_.first_conflict(byte_range::between(streams.at.value, end))) {
    if (*conflict == streams.at.value) {
      lock.unlock();
      co_await allocations_.ended();
      co_return 0;
    }
    end = *conflict; // Q7: up to what is in flight
  }
  streams.lengths = streams.lengths.first((end - streams.at.value) >> g().cluster_bits);
  if (allocator_->has_many_frees() && allocator_->has_ready_frees())
    co_await write_back_locked();
  co_await begin_metadata_change();
  co_await make_l2_writable(g().l1_index(streams.at));
  co_await check_entries(streams.at, streams.lengths.size());
  std::vector<byte_range> places;
  result<> stored = co_await as_result(place_streams(streams, places));
  if (stored) {
    const allocation_list::member member(allocations_, byte_range::between(streams.at.value, end));
    lock.unlock();
    stored = co_await as_result(write_streams(streams, places));
    async_mutex::guard again = co_await store_->lock().lock();
    lock = std::move(again);
    if (stored)
      stored = co_await as_result(link_streams(streams.at, places));
  }
  if (!stored) { // nothing refers to them
    for (const byte_range place : places)
      if (!file_.is_stopped())
        (void)co_await as_result(allocator_->free_unlinked(clusters_of(g(), place)));
    co_await fail(std::move(stored).error());
  }
  co_return streams.lengths.size();
}

task<void> image::place_streams(packed_streams streams, std::vector<byte_range>& places) {
  for (const u64 length : streams.lengths) {
    const byte_range place = co_await allocator_->allocate_packed(length);
    places.push_back(place);
  }
}

// What follows each other in the file goes out in one write.
task<void> image::write_streams(packed_streams streams, std::span<const byte_range> places) {
  for (std::size_t i = 0; i < places.size();) {
    byte_range together = places[i++];
    while (i < places.size() && places[i].offset == together.end())
      together.length += places[i++].length;
    if (file_.tells())
      co_await file_.tell(debug_event::write_compressed);
    co_await file_.write_data(host_offset(together.offset), streams.bytes.first(together.length));
    streams.bytes = streams.bytes.subspan(together.length);
  }
}

// As link_plan.
task<void> image::link_streams(guest_offset at, std::span<const byte_range> places) {
  if (file_.tells())
    co_await file_.tell(debug_event::l2_update_compressed);
  const host_offset slice_at = slice_of(at);
  const std::span<std::byte> slice = co_await store_->load_l2(slice_at, metadata_lock::held);
  const u64 index = index_in_slice(at);
  for (u64 i = 0; i < places.size(); i++) {
    const l2_entry old = load_entry(g(), slice, index + i);
    store_entry(g(), slice, index + i, compressed_entry(g(), places[i]));
    free_entry(old, free_reason::rewrite);
  }
  store_->l2_changed(slice_at);
  store_->needs_flush();
  mapping_changed({at.value, places.size() << g().cluster_bits});
}

} // namespace bgfs::qcow2
