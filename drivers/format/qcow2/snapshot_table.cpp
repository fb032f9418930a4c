// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/snapshot_table.h"

#include "drivers/format/qcow2/wire.h"
#include "graph/base/limits.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <limits>

namespace bgfs::qcow2 {

namespace {

// Places in the extra data, and how much of it has the field.
constexpr u64 vm_state_at = 0;
constexpr u64 disk_length_at = 8;
constexpr u64 icount_at = 16;
constexpr u64 extra_with_disk_length = disk_length_at + sizeof(be64); // what version 3 demands
constexpr u64 extra_with_icount = icount_at + sizeof(be64);
constexpr u64 no_icount = ~u64{0};

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

void read_extra(snapshot& s) {
  if (s.extra.size() >= vm_state_at + sizeof(be64))
    s.vm_state_length = load<be64>(s.extra, vm_state_at);
  if (s.extra.size() >= extra_with_disk_length)
    s.disk_length = load<be64>(s.extra, disk_length_at);
  if (s.extra.size() >= extra_with_icount && load<be64>(s.extra, icount_at) != no_icount)
    s.icount = load<be64>(s.extra, icount_at);
}

snapshot read_entry(const snapshot_entry_wire& wire, std::span<const std::byte> entry) {
  const u64 id_at = sizeof wire + wire.extra_length;
  const u64 name_at = id_at + wire.id_length;
  const auto extra = entry.subspan(sizeof wire, wire.extra_length);
  snapshot s{.l1 = host_offset(wire.l1_offset),
             .l1_entries = wire.l1_entries,
             .id = text_of(entry.subspan(id_at, wire.id_length)),
             .name = text_of(entry.subspan(name_at, wire.name_length)),
             .date_seconds = wire.date_seconds,
             .date_nanoseconds = wire.date_nanoseconds,
             .vm_clock_nanoseconds = wire.vm_clock_nanoseconds,
             .vm_state_length = wire.vm_state_length,
             .disk_length = {},
             .icount = {},
             .extra = {extra.begin(), extra.end()}};
  read_extra(s);
  return s;
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
    const u64 length =
        sizeof wire + wire.extra_length + u64{wire.id_length} + u64{wire.name_length};
    if (bytes.size() - at < length)
      return std::nullopt;
    table.snapshots.push_back(read_entry(wire, bytes.subspan(at, length)));
    table.bytes = at + length;
    at = std::min<u64>(align_up(table.bytes, 8), bytes.size()); // the last one need not be padded
  }
  return table;
}

namespace {

// The extra data with what is known put in. An old entry keeps its length, unless it is too short
// for version 3; what it does not record it goes on not recording.
std::vector<std::byte> extra_of(const snapshot& s, unsigned version, u64 disk_length) {
  std::vector<std::byte> extra = s.extra;
  const u64 wanted = s.icount                        ? extra_with_icount
                     : version >= 3 || s.disk_length ? extra_with_disk_length
                                                     : 0;
  const u64 known = extra.size();
  extra.resize(std::max<u64>(extra.size(), wanted));
  const std::span<std::byte> bytes(extra);
  if (bytes.size() >= vm_state_at + sizeof(be64))
    store(bytes, be64(s.vm_state_length), vm_state_at);
  if (bytes.size() >= extra_with_disk_length)
    store(bytes, be64(s.disk_length.value_or(disk_length)), disk_length_at);
  if (bytes.size() >= extra_with_icount && (s.icount || known >= extra_with_icount))
    store(bytes, be64(s.icount.value_or(no_icount)), icount_at);
  return extra;
}

void append(std::vector<std::byte>& out, std::string_view text) {
  for (const char c : text)
    out.push_back(static_cast<std::byte>(c));
}

} // namespace

result<std::vector<std::byte>> serialise_snapshots(std::span<const snapshot> all, unsigned version,
                                                   u64 disk_length) {
  if (all.size() > snapshots_max)
    return fail(
        error(error_kind::out_of_range,
              fmt::format("an image holds at most {} snapshots; delete one first", snapshots_max),
              EFBIG));
  std::vector<std::byte> out;
  for (const snapshot& s : all) {
    const std::vector<std::byte> extra = extra_of(s, version, disk_length);
    snapshot_entry_wire wire;
    wire.l1_offset = s.l1.value;
    wire.l1_entries = s.l1_entries;
    wire.id_length = static_cast<u16>(s.id.size());
    wire.name_length = static_cast<u16>(s.name.size());
    wire.date_seconds = s.date_seconds;
    wire.date_nanoseconds = s.date_nanoseconds;
    wire.vm_clock_nanoseconds = s.vm_clock_nanoseconds;
    // Of a longer one the extra data tell.
    constexpr u64 field_max = std::numeric_limits<u32>::max();
    wire.vm_state_length = static_cast<u32>(s.vm_state_length > field_max ? 0 : s.vm_state_length);
    wire.extra_length = static_cast<u32>(extra.size());
    const std::size_t at = out.size();
    out.resize(at + sizeof wire);
    store(std::span(out), wire, at);
    out.insert(out.end(), extra.begin(), extra.end());
    append(out, s.id);
    append(out, s.name);
    out.resize(align_up(out.size(), 8));
    if (out.size() > snapshot_table_bytes_max)
      return fail(error(error_kind::out_of_range,
                        fmt::format("the snapshot table would be longer than {} bytes; delete a "
                                    "snapshot first",
                                    snapshot_table_bytes_max),
                        EFBIG));
  }
  return out;
}

std::string next_snapshot_id(std::span<const snapshot> all) {
  u64 largest = 0;
  for (const snapshot& s : all) {
    u64 number = 0;
    const char* const end = s.id.data() + s.id.size();
    const auto [after, problem] = std::from_chars(s.id.data(), end, number);
    if (problem == std::errc() && after == end)
      largest = std::max(largest, number);
  }
  std::string id = std::to_string(++largest);
  while (std::ranges::find(all, id, &snapshot::id) != all.end()) // the largest there is was taken
    id = std::to_string(++largest);
  return id;
}

snapshot_info to_info(const snapshot& s, u64 disk_length) {
  return {.id = s.id,
          .name = s.name,
          .date_seconds = s.date_seconds,
          .date_nanoseconds = s.date_nanoseconds,
          .vm_clock_nanoseconds = s.vm_clock_nanoseconds,
          .icount = s.icount,
          .vm_state_length = s.vm_state_length,
          .disk_length = s.disk_length.value_or(disk_length)};
}

} // namespace bgfs::qcow2
