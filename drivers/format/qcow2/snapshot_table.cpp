// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/snapshot_table.h"

#include "drivers/format/qcow2/wire.h"
#include "graph/base/limits.h"

#include <optional>

namespace bgfs::qcow2 {

namespace {

constexpr u32 snapshot_extra_max = 1024;

std::string text_of(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte b : bytes)
    text.push_back(static_cast<char>(b));
  return text;
}

result<> check(const geometry& g, const snapshot_entry_wire& wire, u32 index) {
  if (wire.extra_length > snapshot_extra_max)
    return fail(error_kind::corrupt_image,
                "snapshot {} has {} bytes of extra data, more than {}; the image is corrupt", index,
                wire.extra_length.get(), snapshot_extra_max);
  const u64 bytes = u64{wire.l1_entries} * 8;
  if (bytes > l1_bytes_max)
    return fail(error_kind::corrupt_image,
                "the L1 table of snapshot {} has {} entries, more than {}; the image is corrupt",
                index, wire.l1_entries.get(), l1_bytes_max / 8);
  if (!is_aligned(wire.l1_offset, g.cluster()) || wire.l1_offset > device_length_max - bytes)
    return fail(error_kind::corrupt_image,
                "the L1 table of snapshot {} at {:#x} is not at a multiple of the cluster size "
                "{:#x}; the image is corrupt",
                index, wire.l1_offset.get(), g.cluster());
  return {};
}

} // namespace

result<std::optional<snapshot_table>> parse_snapshots(const geometry& g,
                                                      std::span<const std::byte> bytes, u32 count) {
  snapshot_table table;
  u64 at = 0;
  for (u32 i = 0; i < count; i++) {
    if (bytes.size() - at < sizeof(snapshot_entry_wire))
      return std::nullopt;
    const auto wire = load<snapshot_entry_wire>(bytes, at);
    BGFS_CHECK(check(g, wire, i));
    const u64 id_at = sizeof wire + wire.extra_length;
    const u64 name_at = id_at + wire.id_length;
    const u64 length = align_up(name_at + wire.name_length, 8);
    if (bytes.size() - at < length)
      return std::nullopt;
    table.snapshots.push_back({host_offset(wire.l1_offset), wire.l1_entries,
                               text_of(bytes.subspan(at + id_at, wire.id_length)),
                               text_of(bytes.subspan(at + name_at, wire.name_length))});
    at += length;
  }
  table.bytes = at;
  return table;
}

} // namespace bgfs::qcow2
