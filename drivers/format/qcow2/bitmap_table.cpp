// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/bitmap_table.h"

#include "drivers/format/qcow2/l2_entry.h"
#include "drivers/format/qcow2/wire.h"

namespace bgfs::qcow2 {

namespace {

constexpr u32 flags_known =
    bitmap_flag::in_use | bitmap_flag::automatic | bitmap_flag::extra_data_compatible;
constexpr u8 dirty_tracking = 1;
constexpr u8 granularity_bits_min = 9;
constexpr u8 granularity_bits_max = 31;
constexpr u16 name_length_max = 1023;
constexpr u64 bitmap_bytes_max = 512 * MiB;

result<> check_entry(const geometry& g, const bitmap_entry_wire& wire, u64 disk_length, u32 index) {
  const auto wrong = [&](std::string_view what, u64 value) {
    return fail(error_kind::corrupt_image, "bitmap {} has {} {:#x}; the image is corrupt", index,
                what, value);
  };
  if ((wire.flags & ~flags_known) != 0)
    return wrong("unknown flags", wire.flags);
  if (wire.type != dirty_tracking)
    return wrong("the unknown type", wire.type);
  if (wire.granularity_bits < granularity_bits_min || wire.granularity_bits > granularity_bits_max)
    return wrong("an impossible granularity of 2 to the power of", wire.granularity_bits);
  if (wire.name_length == 0 || wire.name_length > name_length_max)
    return wrong("a name of impossible length", wire.name_length);
  if (wire.table_offset == 0 || !is_aligned(wire.table_offset, g.cluster()) ||
      wire.table_offset >= host_end_max)
    return wrong("its table at the impossible offset", wire.table_offset);
  const u64 bytes = u64{wire.table_entries} << g.cluster_bits;
  if (wire.table_entries == 0 || bytes > bitmap_bytes_max)
    return wrong("an impossible count of table entries", wire.table_entries);
  // A bitmap that is out of date may have another size.
  if ((wire.flags & bitmap_flag::in_use) == 0 &&
      divide_up(disk_length, u64{1} << wire.granularity_bits) > bytes * 8)
    return wrong("a table too small for the disk: entries", wire.table_entries);
  return {};
}

} // namespace

result<std::vector<stored_bitmap>> parse_bitmap_directory(const geometry& g,
                                                          std::span<const std::byte> directory,
                                                          u32 count, u64 disk_length) {
  std::vector<stored_bitmap> bitmaps;
  u64 at = 0;
  for (u32 i = 0; i < count; i++) {
    const auto too_short = [&] {
      return fail(error_kind::corrupt_image,
                  "the bitmap directory of {:#x} bytes ends inside entry {} of {}; the image is "
                  "corrupt",
                  directory.size(), i, count);
    };
    if (directory.size() - at < sizeof(bitmap_entry_wire))
      return too_short();
    const auto wire = load<bitmap_entry_wire>(directory, at);
    const u64 name_at = sizeof wire + u64{wire.extra_length};
    const u64 length = align_up(name_at + wire.name_length, 8);
    if (directory.size() - at < length)
      return too_short();
    BGFS_CHECK(check_entry(g, wire, disk_length, i));
    stored_bitmap b{.table = host_offset(wire.table_offset),
                    .table_entries = wire.table_entries,
                    .is_in_use = (wire.flags & bitmap_flag::in_use) != 0,
                    .flags_at = at + bitmap_flags_at,
                    .flags = wire.flags,
                    .granularity_bits = wire.granularity_bits};
    const auto extra = directory.subspan(at + sizeof wire, wire.extra_length);
    b.extra.assign(extra.begin(), extra.end());
    for (const std::byte c : directory.subspan(at + name_at, wire.name_length))
      b.name.push_back(static_cast<char>(c));
    bitmaps.push_back(std::move(b));
    at += length;
  }
  if (at != directory.size())
    return fail(error_kind::corrupt_image,
                "the {} entries of the bitmap directory take {:#x} bytes, not {:#x}; the image is "
                "corrupt",
                count, at, directory.size());
  return bitmaps;
}

result<> check_bitmap_table(const geometry& g, std::span<const std::byte> table) {
  for (u64 i = 0; i < table.size() / 8; i++) {
    const u64 entry = load<be64>(table, i * 8);
    const u64 offset = entry & entry_offset_mask;
    const u64 reserved = entry & ~entry_offset_mask & (offset == 0 ? ~u64{1} : ~u64{0});
    if (reserved != 0 || !is_aligned(offset, g.cluster()))
      return fail(error_kind::corrupt_image,
                  "entry {} of its table, {:#x}, is impossible; the image is corrupt", i, entry);
  }
  return {};
}

void mark_bitmaps_in_use(std::span<std::byte> directory, std::span<const stored_bitmap> bitmaps) {
  for (const stored_bitmap& b : bitmaps)
    store(directory, be32(b.flags | bitmap_flag::in_use), b.flags_at);
}

bool stored_bitmap::is_auto() const {
  return (flags & bitmap_flag::automatic) != 0;
}

bool stored_bitmap::is_understood() const {
  return extra.empty() || (flags & bitmap_flag::extra_data_compatible) != 0;
}

std::vector<std::byte> serialise_bitmap_directory(std::span<const stored_bitmap> bitmaps) {
  std::vector<std::byte> directory;
  for (const stored_bitmap& b : bitmaps) {
    bitmap_entry_wire wire;
    wire.table_offset = b.table.value;
    wire.table_entries = b.table_entries;
    wire.flags = b.flags;
    wire.type = dirty_tracking;
    wire.granularity_bits = b.granularity_bits;
    wire.name_length = static_cast<u16>(b.name.size());
    wire.extra_length = static_cast<u32>(b.extra.size());
    const std::size_t at = directory.size();
    directory.resize(at + sizeof wire);
    store(std::span(directory), wire, at);
    directory.insert(directory.end(), b.extra.begin(), b.extra.end());
    for (const char c : b.name)
      directory.push_back(static_cast<std::byte>(c));
    directory.resize(align_up(directory.size(), 8));
  }
  return directory;
}

u64 bitmap_clusters(const geometry& g, u64 bits) {
  return divide_up(bits, g.cluster() * 8);
}

} // namespace bgfs::qcow2
