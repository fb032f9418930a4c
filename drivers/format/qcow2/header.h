// SPDX-License-Identifier: MIT
// The header of a qcow2 image: what it says, from bytes and to bytes. parse_header is pure and
// bounded, so that it can be fuzzed; it refuses what contradicts the specification or this
// implementation's bounds (geometry.h), and features whose absence from this program would make the
// content read wrongly. Whether the image may be *written* is the opener's decision.
#pragma once

#include "drivers/format/qcow2/geometry.h"
#include "drivers/format/qcow2/wire.h"
#include "graph/base/result.h"

#include <optional>
#include <string>
#include <vector>

namespace bgfs::qcow2 {

enum class compression_type : u8 { zlib = 0, zstd = 1 };
[[nodiscard]] std::string_view to_string(compression_type type);

enum class encryption_method : u8 { none = 0, aes = 1, luks = 2 };
[[nodiscard]] std::string_view to_string(encryption_method method);

struct header_extension {
  u32 type = 0;
  std::vector<std::byte> bytes;
  friend bool operator==(const header_extension&, const header_extension&) = default;
};

struct feature_name {
  u8 kind = 0;
  u8 bit = 0;
  std::string name;
};

struct bitmap_directory {
  u32 count = 0;
  byte_range range; // host bytes
};

struct header {
  unsigned version = 3;
  geometry g;
  u64 disk_length = 0; // bytes of the disk it represents
  u32 l1_entries = 0;
  host_offset l1;
  host_offset refcount_table;
  u32 refcount_table_clusters = 0;
  u32 snapshot_count = 0;
  host_offset snapshots;
  u64 incompatible = 0;
  u64 compatible = 0;
  u64 autoclear = 0;
  compression_type compression = compression_type::zlib;
  encryption_method encryption = encryption_method::none;
  std::string backing_file; // empty: none
  // Fields behind those known here (spec, "Additional fields", rule 2), kept as they were.
  std::vector<std::byte> unknown_fields;
  // All of them in order, known or not, without the end marker.
  std::vector<header_extension> extensions;

  friend bool operator==(const header&, const header&) = default;

  [[nodiscard]] const header_extension* find(u32 type) const;
  [[nodiscard]] std::string backing_format() const; // empty: the header does not say
  // The guest's data lie in another file, at the guest's offsets (spec, "External data file").
  [[nodiscard]] bool has_data_file() const {
    return (incompatible & incompatible_bit::data_file) != 0;
  }
  // That file is a raw image of the disk at all times.
  [[nodiscard]] bool has_raw_data_file() const {
    return has_data_file() && (autoclear & autoclear_bit::raw_data_file) != 0;
  }
  [[nodiscard]] std::string data_file() const; // its name; empty: the header does not say
  [[nodiscard]] std::vector<feature_name> feature_names() const;
  // What the bitmaps extension says; nullopt if there is none, or if the autoclear bit does not say
  // that it counts (spec: it is then to be considered inconsistent).
  [[nodiscard]] result<std::optional<bitmap_directory>> bitmaps() const;
  // Where the crypto header extension says that the LUKS header is; of images encrypted with LUKS.
  [[nodiscard]] result<byte_range> crypto_header() const;
  [[nodiscard]] bool is_encrypted() const { return encryption != encryption_method::none; }
  [[nodiscard]] bool is_dirty() const { return (incompatible & incompatible_bit::dirty) != 0; }
  [[nodiscard]] bool is_corrupt() const { return (incompatible & incompatible_bit::corrupt) != 0; }
  [[nodiscard]] bool has_lazy_refcounts() const {
    return (compatible & compatible_bit::lazy_refcounts) != 0;
  }
};

// How many bytes parse_header needs: the first cluster. `head` holds at least the first 72 bytes;
// fails when they are not a qcow2 header of a supported version and cluster size.
[[nodiscard]] result<u64> header_cluster_bytes(std::span<const std::byte> head);

// What a header is read for. A check goes without the refcount table and the snapshot table, and
// does not mind that data are encrypted or in another file.
enum class header_use : u8 { disk, check };

// `first_cluster` is the first cluster, or the whole file when that is shorter.
[[nodiscard]] result<header> parse_header(std::span<const std::byte> first_cluster,
                                          header_use use = header_use::disk);

// The first cluster, as it has to be written: unknown fields and extensions as they were, reserved
// bytes zero. Fails when it does not fit.
[[nodiscard]] result<std::vector<std::byte>> serialise_header(const header& h);

// What the bits of the header mean, for people: a courtesy to other programs, left out where the
// first cluster is full, or so small that a backing file name would not find room (the bound is the
// one that everybody keeps).
void add_feature_names(header& h);
[[nodiscard]] header_extension make_backing_format(std::string_view format);
[[nodiscard]] header_extension make_data_file(std::string_view name);
[[nodiscard]] header_extension make_crypto_header(byte_range host);
[[nodiscard]] header_extension make_bitmaps(const bitmap_directory& directory);

// The extensions with their end marker, as they lie behind the header's fields.
[[nodiscard]] std::vector<std::byte>
serialise_extensions(std::span<const header_extension> extensions);

// What a header can hold of a backing file's name and format (spec, offset 16; 3.1).
inline constexpr u32 backing_file_length_max = 1023;
inline constexpr std::size_t backing_format_length_max = 15;

} // namespace bgfs::qcow2
