// SPDX-License-Identifier: MIT
// The qcow2 structures as they lie on the disk (QEMU's docs/interop/qcow2, "spec" below). Nothing
// here interprets: header.h, l2_entry.h and snapshot_table.h do.
#pragma once

#include "graph/base/endian.h"

namespace bgfs::qcow2 {

inline constexpr u32 magic = 0x514649fb; // "QFI\xfb"

// Spec, "Header": the part that every version has.
struct header_v2_wire {
  be32 magic;
  be32 version;
  be64 backing_file_offset;
  be32 backing_file_length;
  be32 cluster_bits;
  be64 disk_length;
  be32 crypt_method;
  be32 l1_entries;
  be64 l1_offset;
  be64 refcount_table_offset;
  be32 refcount_table_clusters;
  be32 snapshot_count;
  be64 snapshots_offset;
};
static_assert(sizeof(header_v2_wire) == 72);

// What follows in version 3.
struct header_v3_wire {
  be64 incompatible;
  be64 compatible;
  be64 autoclear;
  be32 refcount_order;
  be32 header_length;
};
static_assert(sizeof(header_v3_wire) == 32);

inline constexpr u32 header_length_v2 = 72;
inline constexpr u32 header_length_v3_min = 104;
// Spec, "Additional fields": the compression type, then padding to a multiple of 8.
inline constexpr u32 compression_type_at = 104;
inline constexpr u32 header_length_written = 112;

// Places of fields that are changed on their own.
namespace header_at {
inline constexpr u64 version = 4;
inline constexpr u64 backing_file_offset = 8;  // 8 bytes, followed by
inline constexpr u64 backing_file_length = 16; // 4 bytes
inline constexpr u64 disk_length = 24;
inline constexpr u64 l1_entries = 36;            // 4 bytes, followed by
inline constexpr u64 l1_offset = 40;             // 8 bytes
inline constexpr u64 refcount_table_offset = 48; // 8 bytes, followed by the clusters in 4
inline constexpr u64 snapshot_count = 60;        // 4 bytes, followed by their offset in 8
inline constexpr u64 incompatible = 72;
inline constexpr u64 compatible = 80;
inline constexpr u64 autoclear = 88;
inline constexpr u64 header_length = 100;
} // namespace header_at

// The L1 table's size and place change in one write, so that no crash sees half of it.
struct l1_location_wire {
  be32 l1_entries;
  be64 l1_offset;
};
static_assert(sizeof(l1_location_wire) == 12);

// The whole disk at once: a snapshot may have another length and another L1 table.
struct disk_location_wire {
  be64 disk_length;
  be32 crypt_method;
  be32 l1_entries;
  be64 l1_offset;
};
static_assert(sizeof(disk_location_wire) == 24);

struct snapshots_location_wire {
  be32 snapshot_count;
  be64 snapshots_offset;
};
static_assert(sizeof(snapshots_location_wire) == 12);

struct refcount_table_location_wire {
  be64 refcount_table_offset;
  be32 refcount_table_clusters;
};
static_assert(sizeof(refcount_table_location_wire) == 12);

// The table with the width of the counts: all that says how to read them lies in one sector.
struct refcount_location_wire {
  be64 refcount_table_offset;
  be32 refcount_table_clusters;
  be32 snapshot_count;
  be64 snapshots_offset;
  be64 incompatible;
  be64 compatible;
  be64 autoclear;
  be32 refcount_order;
};
static_assert(sizeof(refcount_location_wire) == 52);

// Spec, "Header extensions".
struct extension_wire {
  be32 type;
  be32 length; // of the data; padding to a multiple of 8 follows
};
static_assert(sizeof(extension_wire) == 8);

namespace extension_type {
inline constexpr u32 end = 0;
inline constexpr u32 backing_format = 0xe2792aca;
inline constexpr u32 feature_names = 0x6803f857;
inline constexpr u32 bitmaps = 0x23852875;
inline constexpr u32 crypto_header = 0x0537be77;
inline constexpr u32 data_file = 0x44415441;
// Ours: its data means nothing. It leads past header content that is being replaced
// (header_switch.h), and stays only after a crash.
inline constexpr u32 detour = 0x62674454;
} // namespace extension_type

// Spec, "Feature name table": one row.
struct feature_name_wire {
  u8 kind; // 0 incompatible, 1 compatible, 2 autoclear
  u8 bit;
  std::array<char, 46> name;
};
static_assert(sizeof(feature_name_wire) == 48);

// Spec, "Full disk encryption header pointer".
struct crypto_extension_wire {
  be64 offset;
  be64 length;
};
static_assert(sizeof(crypto_extension_wire) == 16);

// Spec, "Bitmaps extension".
struct bitmaps_extension_wire {
  be32 bitmap_count;
  be32 reserved;
  be64 directory_length;
  be64 directory_offset;
};
static_assert(sizeof(bitmaps_extension_wire) == 24);

// Spec, "Bitmap directory": one entry; extra data, the name and padding to 8 follow.
struct bitmap_entry_wire {
  be64 table_offset;
  be32 table_entries;
  be32 flags;
  u8 type;
  u8 granularity_bits;
  be16 name_length;
  be32 extra_length;
};
static_assert(sizeof(bitmap_entry_wire) == 24);
inline constexpr u64 bitmap_flags_at = 12; // of the flags within an entry

// Spec, "Snapshots": one table entry; extra data, id, name and padding to 8 follow.
struct snapshot_entry_wire {
  be64 l1_offset;
  be32 l1_entries;
  be16 id_length;
  be16 name_length;
  be32 date_seconds;
  be32 date_nanoseconds;
  be64 vm_clock_nanoseconds;
  be32 vm_state_length;
  be32 extra_length;
};
static_assert(sizeof(snapshot_entry_wire) == 40);

namespace incompatible_bit {
inline constexpr u64 dirty = 1u << 0;
inline constexpr u64 corrupt = 1u << 1;
inline constexpr u64 data_file = 1u << 2;
inline constexpr u64 compression = 1u << 3;
inline constexpr u64 extended_l2 = 1u << 4;
inline constexpr u64 known = dirty | corrupt | data_file | compression | extended_l2;
} // namespace incompatible_bit

namespace compatible_bit {
inline constexpr u64 lazy_refcounts = 1u << 0;
} // namespace compatible_bit

namespace autoclear_bit {
inline constexpr u64 bitmaps = 1u << 0;
inline constexpr u64 raw_data_file = 1u << 1;
inline constexpr u64 known = bitmaps | raw_data_file;
} // namespace autoclear_bit

} // namespace bgfs::qcow2
