// SPDX-License-Identifier: MIT
// Boot sectors of file systems. They carry the signature of an MBR, and code or text where its
// table would be.
#pragma once

#include <cstddef>
#include <span>

namespace bgfs {

// FAT (Microsoft FAT Specification, section 3.1): every field that must make sense does.
[[nodiscard]] bool is_fat_boot_sector(std::span<const std::byte> sector);
// FAT, or one that names itself: NTFS, exFAT, BitLocker, ReFS. `sector` has 512 bytes.
[[nodiscard]] bool is_file_system_boot_sector(std::span<const std::byte> sector);

} // namespace bgfs
