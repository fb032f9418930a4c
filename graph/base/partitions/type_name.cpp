// SPDX-License-Identifier: MIT
#include "graph/base/partitions/type_name.h"

#include <algorithm>

namespace bgfs {
namespace {

struct named_type {
  std::string_view type;
  std::string_view name;
};

constexpr named_type known_types[] = {
    {"c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "esp"},
    {"bc13c2ff-59e6-4262-a352-b275fd6f7172", "xbootldr"},
    {"21686148-6449-6e6f-744e-656564454649", "bios-boot"},
    {"024dee41-33e7-11d3-9d69-0008c781f39f", "mbr-scheme"},
    {"0fc63daf-8483-4772-8e79-3d69d8477de4", "linux"},
    {"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "linux-swap"},
    {"933ac7e1-2eb4-4f13-b844-0e14e2aef915", "linux-home"},
    {"3b8f8425-20e0-4f3b-907f-1a25a76f98e8", "linux-srv"},
    {"4d21b016-b534-45c2-a9fb-5c16e091fd2d", "linux-var"},
    {"7ec6f557-3bc5-4aca-b293-16ef5df639d1", "linux-tmp"},
    {"4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "linux-root-x86-64"},
    {"44479540-f297-41b2-9af7-d131d5f0458a", "linux-root-x86"},
    {"b921b045-1df0-41c3-af44-4c6f280d3fae", "linux-root-arm64"},
    {"69dad710-2ce4-4e3c-b16c-21a1d49abed3", "linux-root-arm"},
    {"72ec70a6-cf74-40e6-bd49-4bda08e8f224", "linux-root-riscv64"},
    {"8484680c-9521-48c6-9c11-b0720656f69e", "linux-usr-x86-64"},
    {"b0e01050-ee5f-4390-949a-9101b17104e9", "linux-usr-arm64"},
    {"2c7357ed-ebd2-46d9-aec1-23d437ec2bf5", "linux-root-x86-64-verity"},
    {"df3300ce-d69f-4c92-978c-9bfb0f38d820", "linux-root-arm64-verity"},
    {"e6d6d379-f507-44c2-a23c-238f2a3df928", "linux-lvm"},
    {"a19d880f-05fc-4d3b-a006-743f0f84911e", "linux-raid"},
    {"ca7d7ccb-63ed-4c53-861c-1742536059cc", "linux-luks"},
    {"8da63339-0007-60c0-c436-083ac8230908", "linux-reserved"},
    {"ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "microsoft-basic-data"},
    {"e3c9e316-0b5c-4db8-817d-f92df00215ae", "microsoft-reserved"},
    {"de94bba4-06d1-4d40-a16a-bfd50179d6ac", "microsoft-recovery"},
    {"5808c8aa-7e8f-42e0-85d2-e1e90434cfb3", "microsoft-ldm-metadata"},
    {"af9b60a0-1431-4f62-bc68-3311714a69ad", "microsoft-ldm-data"},
    {"e75caf8f-f680-4cee-afa3-b001e56efc2d", "microsoft-storage-spaces"},
    {"48465300-0000-11aa-aa11-00306543ecac", "apple-hfs"},
    {"7c3457ef-0000-11aa-aa11-00306543ecac", "apple-apfs"},
    {"516e7cb4-6ecf-11d6-8ff8-00022d09712b", "freebsd-data"},
    {"83bd6b9d-7f41-11dc-be0b-001560b84f0f", "freebsd-boot"},
    {"516e7cb5-6ecf-11d6-8ff8-00022d09712b", "freebsd-swap"},
    {"516e7cb6-6ecf-11d6-8ff8-00022d09712b", "freebsd-ufs"},
    {"516e7cba-6ecf-11d6-8ff8-00022d09712b", "freebsd-zfs"},
    {"6a898cc3-1dd2-11b2-99a6-080020736631", "zfs"},
    {"cef5a9ad-73bc-4601-89f3-cdeeeee321a1", "qnx6"},
    {"aa31e02a-400f-11db-9590-000c2911d1b8", "vmfs"},
    {"fe3a2a5d-4f32-41a7-b725-accc3285a309", "chromeos-kernel"},
    {"3cb8e202-3b7e-47dd-8a3c-7ff2a13cfcec", "chromeos-root"},
    {"0x01", "fat12"},
    {"0x04", "fat16-small"},
    {"0x05", "extended"},
    {"0x06", "fat16"},
    {"0x07", "ntfs-exfat"},
    {"0x0b", "fat32"},
    {"0x0c", "fat32-lba"},
    {"0x0e", "fat16-lba"},
    {"0x0f", "extended-lba"},
    {"0x11", "hidden-fat12"},
    {"0x1b", "hidden-fat32"},
    {"0x27", "microsoft-recovery"},
    {"0x39", "plan9"},
    {"0x42", "microsoft-dynamic"},
    {"0x63", "unix"},
    {"0x81", "minix"},
    {"0x82", "linux-swap"},
    {"0x83", "linux"},
    {"0x85", "linux-extended"},
    {"0x8e", "linux-lvm"},
    {"0xa5", "freebsd"},
    {"0xa6", "openbsd"},
    {"0xa8", "apple-ufs"},
    {"0xa9", "netbsd"},
    {"0xaf", "apple-hfs"},
    {"0xbf", "solaris"},
    {"0xda", "non-file-system"},
    {"0xea", "xbootldr"},
    {"0xee", "protective-gpt"},
    {"0xef", "esp"},
    {"0xfb", "vmfs"},
    {"0xfd", "linux-raid"},
};

} // namespace

std::string_view partition_type_name(std::string_view type) {
  const auto* const at = std::ranges::find(known_types, type, &named_type::type);
  return at == std::end(known_types) ? std::string_view() : at->name;
}

} // namespace bgfs
