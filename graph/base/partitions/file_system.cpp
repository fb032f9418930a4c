// SPDX-License-Identifier: MIT
// The marks are those of each format's documentation, which the table names.
#include "graph/base/partitions/file_system.h"

#include "graph/base/endian.h"
#include "graph/base/partitions/boot_sector.h"

#include <algorithm>
#include <array>

namespace bgfs {
namespace {

using namespace std::string_view_literals;

struct mark {
  file_system what;
  u64 offset; // in the partition
  std::string_view bytes;
};

constexpr mark marks[] = {
    // LUKS On-Disk Format Specification 1.2.3, 2.1; LUKS2 On-Disk Format Specification 1.1, 2.1
    {{"crypto_LUKS", ""}, 0, "LUKS\xba\xbe"sv},
    // libbde, "BitLocker Drive Encryption format", volume header
    {{"BitLocker", "dislocker-fuse"}, 3, "-FVE-FS-"sv},
    // XFS Algorithms & Data Structures, "Superblocks"
    {{"xfs", ""}, 0, "XFSB"sv},
    // Squashfs binary format, "The superblock"
    {{"squashfs", "squashfuse"}, 0, "hsqs"sv},
    // NTFS documentation of the Linux-NTFS project, "$Boot"
    {{"ntfs", "ntfs-3g"}, 3, "NTFS    "sv},
    // exFAT file system specification, 3.1.2
    {{"exfat", "mount.exfat-fuse"}, 3, "EXFAT   "sv},
    // ReFS, libfsrefs "Resilient File System format", volume header
    {{"ReFS", ""}, 3, "ReFS\0\0\0\0"sv},
    // Apple File System Reference, "nx_superblock_t"
    {{"apfs", "apfs-fuse"}, 32, "NXSB"sv},
    // lvm2, "Physical volume label", the second sector
    {{"LVM2_member", ""}, 512, "LABELONE"sv},
    // Linux, Documentation/filesystems/erofs.rst: 0xe0f5e1e2 at 1024
    {{"erofs", "erofsfuse"}, 1024, "\xe2\xe1\xf5\xe0"sv},
    // Linux, Documentation/filesystems/f2fs.rst: 0xf2f52010 at 1024
    {{"f2fs", ""}, 1024, "\x10\x20\xf5\xf2"sv},
    // Apple Technical Note TN1150, "Volume Header"
    {{"hfsplus", "hfsfuse"}, 1024, "H+\0\x04"sv},
    {{"hfsplus", "hfsfuse"}, 1024, "HX\0\x05"sv},
    // NILFS2 on-disk format, "nilfs_super_block": 0x3434 at 1030
    {{"nilfs2", ""}, 1030, "\x34\x34"sv},
    // Linux RAID wiki, "RAID superblock formats": version 1.1 and 1.2
    {{"linux_raid_member", ""}, 0, "\xfc\x4e\x2b\xa9"sv},
    {{"linux_raid_member", ""}, 4096, "\xfc\x4e\x2b\xa9"sv},
    // bcachefs: Principles of Operation, "Superblock"
    {{"bcachefs", ""}, 4120, "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"sv},
    // mkswap(8), util-linux: the end of the first page
    {{"swap", ""}, 4086, "SWAPSPACE2"sv},
    // ECMA-119, 8.4 and ECMA-167, 2/9.1; UDF first, since bridges have both
    {{"udf", ""}, 32769, "BEA01"sv},
    {{"iso9660", "fuseiso"}, 32769, "CD001"sv},
    // JFS layout, "superblock"
    {{"jfs", ""}, 32768, "JFS1"sv},
    // btrfs documentation, "On-disk format", "Superblock"
    {{"btrfs", "btrfs-fuse"}, 65600, "_BHRfS_M"sv},
    // ReiserFS, "The structure of the Reiser file system"
    {{"reiserfs", ""}, 65588, "ReIsEr2Fs"sv},
    {{"reiserfs", ""}, 65588, "ReIsEr3Fs"sv},
    // UFS2, FreeBSD fs(5): 0x19540119 at 1372 of the super block
    {{"ufs", "fuse-ufs"}, 66908, "\x19\x01\x54\x19"sv},
};

constexpr file_system fat = {"vfat", "fusefat"};
constexpr file_system ext2 = {"ext2", "fuse2fs"};
constexpr file_system ext3 = {"ext3", "fuse2fs"};
constexpr file_system ext4 = {"ext4", "fuse2fs"};
constexpr file_system ext_journal = {"jbd", ""};

// Where marks are, in the order they are read; a mark lies in one of them.
constexpr byte_range windows[] = {{0, 8192}, {32768, 4096}, {65536, 4096}};

// Linux, Documentation/filesystems/ext4/super.rst: 0xef53 at 56 of the super block at 1024.
const file_system* find_ext(std::span<const std::byte> head) {
  constexpr std::size_t begin = 1024;
  if (head.size() < begin + 104 || load<le16>(head, begin + 56) != 0xef53)
    return nullptr;
  const u32 compatible = load<le32>(head, begin + 92);
  const u32 incompatible = load<le32>(head, begin + 96);
  const u32 read_only = load<le32>(head, begin + 100);
  constexpr u32 ext3_incompatible = 0x2 | 0x4 | 0x10; // filetype, recover, meta_bg
  constexpr u32 ext3_read_only = 0x1 | 0x2 | 0x4;     // sparse_super, large_file, btree_dir
  if ((incompatible & 0x8) != 0)
    return &ext_journal;
  if ((incompatible & ~ext3_incompatible) != 0 || (read_only & ~ext3_read_only) != 0)
    return &ext4;
  return (compatible & 0x4) != 0 ? &ext3 : &ext2; // has_journal
}

const file_system* find_mark(std::span<const std::byte> bytes, u64 begin) {
  for (const mark& m : marks) {
    if (m.offset < begin || m.offset - begin > bytes.size() ||
        m.bytes.size() > bytes.size() - (m.offset - begin))
      continue;
    const auto found = bytes.subspan(m.offset - begin, m.bytes.size());
    if (std::ranges::equal(found, std::as_bytes(std::span(m.bytes))))
      return &m.what;
  }
  return nullptr;
}

} // namespace

sampled<const file_system*> find_file_system(const disk_sample& disk, byte_range place) {
  for (const byte_range& w : windows) {
    const byte_range part = byte_range{place.offset + w.offset, w.length}.intersection(place);
    if (part.is_empty())
      break;
    BGFS_TRY(const auto bytes, disk.bytes(part));
    if (const file_system* found = find_mark(bytes, w.offset))
      return found;
    if (w.offset != 0)
      continue;
    if (const file_system* found = find_ext(bytes))
      return found;
    if (bytes.size() >= 512 && is_fat_boot_sector(bytes))
      return &fat;
  }
  return nullptr;
}

} // namespace bgfs
