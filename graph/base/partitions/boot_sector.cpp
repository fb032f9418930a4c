// SPDX-License-Identifier: MIT
#include "graph/base/partitions/boot_sector.h"

#include "graph/base/checked.h"
#include "graph/base/endian.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace bgfs {
namespace {

struct fat_wire {
  std::array<u8, 3> jump;
  std::array<char, 8> oem;
  le16 sector_length;
  u8 sectors_per_cluster;
  le16 reserved_sectors;
  u8 fat_count;
  le16 root_entries;
  le16 sectors_16;
  u8 media;
  le16 fat_sectors_16;
  le16 sectors_per_track;
  le16 heads;
  le32 hidden_sectors;
  le32 sectors_32;
  le32 fat_sectors_32;
};
static_assert(sizeof(fat_wire) == 40);

bool has_text(std::span<const std::byte> sector, std::size_t offset, std::string_view text) {
  return std::ranges::equal(sector.subspan(offset, text.size()), std::as_bytes(std::span(text)));
}

} // namespace

bool is_fat_boot_sector(std::span<const std::byte> sector) {
  const auto f = load<fat_wire>(sector);
  const bool jumps = f.jump[0] == 0xe9 || (f.jump[0] == 0xeb && f.jump[2] == 0x90);
  const u32 length = f.sector_length;
  const bool has_sectors = is_power_of_two(length) && length >= 512 && length <= 4096;
  const bool has_clusters = is_power_of_two(f.sectors_per_cluster);
  const bool has_media = f.media == 0xf0 || f.media >= 0xf8;
  const bool has_fats = f.fat_count == 1 || f.fat_count == 2;
  const bool has_length =
      (f.sectors_16 != 0 || f.sectors_32 != 0) && (f.fat_sectors_16 != 0 || f.fat_sectors_32 != 0);
  return jumps && has_sectors && has_clusters && f.reserved_sectors != 0 && has_media && has_fats &&
         has_length;
}

bool is_file_system_boot_sector(std::span<const std::byte> sector) {
  for (const std::string_view name : {"NTFS    ", "EXFAT   ", "-FVE-FS-", "ReFS\0\0\0\0"})
    if (has_text(sector, 3, name))
      return true;
  return is_fat_boot_sector(sector);
}

} // namespace bgfs
