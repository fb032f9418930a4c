// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/header.h"

#include "graph/base/limits.h"

#include <algorithm>
#include <fmt/ranges.h>

namespace bgfs::qcow2 {

std::string_view to_string(compression_type type) {
  switch (type) {
  case compression_type::zlib:
    return "zlib";
  case compression_type::zstd:
    return "zstd";
  }
  return "";
}

std::string_view to_string(encryption_method method) {
  switch (method) {
  case encryption_method::none:
    return "none";
  case encryption_method::aes:
    return "aes";
  case encryption_method::luks:
    return "luks";
  }
  return "";
}

namespace {

std::string text_of(std::span<const std::byte> bytes) {
  std::string text(bytes.size(), '\0');
  std::transform(bytes.begin(), bytes.end(), text.begin(),
                 [](std::byte b) { return static_cast<char>(b); });
  return text;
}

std::vector<std::byte> bytes_of(std::string_view text) {
  std::vector<std::byte> bytes(text.size());
  std::transform(text.begin(), text.end(), bytes.begin(),
                 [](char c) { return static_cast<std::byte>(c); });
  return bytes;
}

// A table at `offset` of `length` bytes: aligned, and its end is a possible file offset.
result<> check_table(const geometry& g, std::string_view what, u64 offset, u64 length) {
  if (!is_aligned(offset, g.cluster()))
    return fail(error_kind::corrupt_image,
                "{} at {:#x} is not aligned to the cluster size {:#x}; the image is corrupt", what,
                offset, g.cluster());
  const auto end = checked_add(offset, length);
  if (!end || *end > device_length_max)
    return fail(error_kind::corrupt_image,
                "{} at {:#x} of {:#x} bytes ends beyond the largest possible file; the image is "
                "corrupt",
                what, offset, length);
  return {};
}

result<> parse_extensions(std::span<const std::byte> area, u64 area_offset, header& h) {
  u64 at = 0;
  while (area.size() - at >= sizeof(extension_wire)) {
    const auto wire = load<extension_wire>(area, at);
    if (wire.type == extension_type::end)
      return {};
    at += sizeof wire;
    const u64 length = wire.length;
    if (length > area.size() - at)
      return fail(error_kind::corrupt_image,
                  "header extension {:#010x} at {:#x} claims {:#x} bytes where {:#x} are left in "
                  "the header; the image is corrupt",
                  wire.type.get(), area_offset + at - sizeof wire, length, area.size() - at);
    const auto data = area.subspan(at, length);
    h.extensions.push_back({wire.type, {data.begin(), data.end()}});
    at += std::min<u64>(align_up(length, 8), area.size() - at);
  }
  return {}; // the area may end without an end marker when it is full
}

std::string name_features(const header& h, u64 bits) {
  const auto names = h.feature_names();
  std::vector<std::string> parts;
  for (unsigned bit = 0; bit < 64; bit++) {
    if ((bits >> bit & 1) == 0)
      continue;
    const auto known = std::ranges::find_if(
        names, [&](const feature_name& n) { return n.kind == 0 && n.bit == bit; });
    parts.push_back(known != names.end()
                        ? fmt::format("'{}' (incompatible bit {})", known->name, bit)
                        : fmt::format("incompatible bit {}", bit));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

result<> check_features(const header& h, u32 crypt_method, header_use use) {
  if (const u64 unknown = h.incompatible & ~incompatible_bit::known; unknown != 0)
    return fail(error_kind::unsupported,
                "the image uses features that this version does not know: {}; use a newer version",
                name_features(h, unknown));
  if (crypt_method > 2)
    return fail(error_kind::corrupt_image,
                "encryption method {} is not one of 0 (none), 1 (AES), 2 (LUKS); the image is "
                "corrupt",
                crypt_method);
  const bool is_disk = use == header_use::disk;
  if ((h.autoclear & autoclear_bit::raw_data_file) != 0 && !h.has_data_file())
    return fail(error_kind::corrupt_image,
                "the image claims that its external data file is raw (autoclear bit 1), but it has "
                "no external data file; the image is corrupt");
  if (is_disk && h.has_data_file() && h.snapshot_count != 0)
    return fail(error_kind::corrupt_image,
                "the image has {} snapshots, which are impossible with an external data file; the "
                "image is corrupt",
                h.snapshot_count);
  if ((h.incompatible & incompatible_bit::data_file) != 0 && !is_disk &&
      h.find(extension_type::data_file) == nullptr)
    return fail(error_kind::corrupt_image,
                "the image keeps its data in an external data file, but does not name it; the "
                "image is corrupt");
  if ((h.incompatible & incompatible_bit::extended_l2) != 0 &&
      h.g.cluster_bits < cluster_bits_min_extended)
    return fail(error_kind::corrupt_image,
                "extended L2 entries need clusters of at least 0x4000 bytes, not {:#x}; the image "
                "is corrupt",
                h.g.cluster());
  return {};
}

result<> parse_v3(std::span<const std::byte> cluster, u32& header_length, header& h) {
  if (cluster.size() < header_length_v3_min)
    return fail(error_kind::corrupt_image,
                "the file ends after {} bytes, inside the header of {}; the image is truncated",
                cluster.size(), header_length_v3_min);
  const auto wire = load<header_v3_wire>(cluster, sizeof(header_v2_wire));
  h.incompatible = wire.incompatible;
  h.compatible = wire.compatible;
  h.autoclear = wire.autoclear;
  header_length = wire.header_length;
  if (header_length < header_length_v3_min || header_length % 8 != 0 ||
      header_length > h.g.cluster())
    return fail(error_kind::corrupt_image,
                "header length {} is not a multiple of 8 between {} and the cluster size {}; the "
                "image is corrupt",
                header_length, header_length_v3_min, h.g.cluster());
  if (header_length > cluster.size())
    return fail(error_kind::corrupt_image,
                "the file ends after {} bytes, inside the header of {}; the image is truncated",
                cluster.size(), header_length);
  if (wire.refcount_order > refcount_order_max)
    return fail(error_kind::corrupt_image,
                "refcount order {} is larger than {} (64 bits); the image is corrupt",
                wire.refcount_order.get(), refcount_order_max);
  h.g.refcount_order = wire.refcount_order;
  h.g.is_extended = (h.incompatible & incompatible_bit::extended_l2) != 0;
  return {};
}

// Spec, "Additional fields": the compression type, and what is not known here.
result<> parse_additional(std::span<const std::byte> fields, header& h) {
  const u8 type = fields.empty() ? 0 : std::to_integer<u8>(fields[0]);
  const bool has_bit = (h.incompatible & incompatible_bit::compression) != 0;
  if (has_bit != (type != 0))
    return fail(error_kind::corrupt_image,
                "compression type {} contradicts the compression type bit, which is {}; the image "
                "is corrupt",
                type, has_bit ? "set" : "not set");
  if (type > static_cast<u8>(compression_type::zstd))
    return fail(error_kind::unsupported,
                "compression type {} is not known; known are 0 (zlib) and 1 (zstd)", type);
  h.compression = static_cast<compression_type>(type);
  if (fields.size() > 1)
    h.unknown_fields.assign(fields.begin() + 1, fields.end());
  return {};
}

result<> parse_backing(std::span<const std::byte> cluster, const header_v2_wire& wire,
                       u32 header_length, header& h) {
  const u64 offset = wire.backing_file_offset;
  if (offset == 0)
    return {};
  if (wire.backing_file_length > backing_file_length_max)
    return fail(error_kind::corrupt_image,
                "the backing file name is {} bytes long, more than {}; the image is corrupt",
                wire.backing_file_length.get(), backing_file_length_max);
  if (offset < header_length || offset > h.g.cluster() ||
      wire.backing_file_length > h.g.cluster() - offset)
    return fail(error_kind::corrupt_image,
                "the backing file name at {:#x} of {} bytes does not lie between the header and "
                "the end of the first cluster at {:#x}; the image is corrupt",
                offset, wire.backing_file_length.get(), h.g.cluster());
  if (offset + wire.backing_file_length > cluster.size())
    return fail(error_kind::corrupt_image,
                "the file ends after {} bytes, inside the backing file name at {:#x}; the image is "
                "truncated",
                cluster.size(), offset);
  h.backing_file = text_of(cluster.subspan(offset, wire.backing_file_length));
  if (h.backing_file.contains('\0'))
    return fail(error_kind::corrupt_image,
                "the backing file name contains a zero byte; the image is corrupt");
  return {};
}

template<class T>
result<> without_value(result<T> r) {
  if (!r)
    return fail(std::move(r).error());
  return {};
}

result<> check_l1(const header& h) {
  const u64 bytes = u64{h.l1_entries} * 8;
  if (bytes > l1_bytes_max)
    return fail(error_kind::corrupt_image,
                "the L1 table has {} entries, more than {}; the image is corrupt", h.l1_entries,
                l1_bytes_max / 8);
  if (h.disk_length > device_length_max)
    return fail(error_kind::corrupt_image,
                "the disk is {:#x} bytes long, more than {:#x}; the image is corrupt",
                h.disk_length, device_length_max);
  if (const u64 needed = h.g.l1_entries_for(h.disk_length); h.l1_entries < needed)
    return fail(error_kind::corrupt_image,
                "the L1 table has {} entries, but a disk of {:#x} bytes needs {}; the image is "
                "corrupt",
                h.l1_entries, h.disk_length, needed);
  if (bytes != 0 && h.l1.value == 0)
    return fail(error_kind::corrupt_image,
                "the L1 table is at offset 0, where the header is; the image is corrupt");
  return check_table(h.g, "the L1 table", h.l1.value, bytes);
}

// Spec, "Full disk encryption header pointer": it is there if and only if the method needs it.
result<> check_encryption(const header& h) {
  const bool has_pointer = h.find(extension_type::crypto_header) != nullptr;
  if (h.encryption == encryption_method::luks) {
    BGFS_CHECK(without_value(h.crypto_header()));
  } else if (has_pointer) {
    return fail(error_kind::corrupt_image,
                "the image points to an encryption header, which only images encrypted with LUKS "
                "have; its encryption method is '{}'; the image is corrupt",
                to_string(h.encryption));
  }
  // Sectors are encrypted whole; the rest of one would be neither readable nor writable.
  if (h.is_encrypted() && !is_aligned(h.disk_length, 512))
    return fail(error_kind::corrupt_image,
                "the disk of an encrypted image is {:#x} bytes long, which is no multiple of 512; "
                "the image is corrupt",
                h.disk_length);
  return {};
}

result<> check_tables(const header& h, header_use use) {
  BGFS_CHECK(check_l1(h));
  if (h.refcount_table_clusters == 0 && use == header_use::check)
    return {};
  if (h.refcount_table_clusters == 0)
    return fail(error_kind::corrupt_image, "the image has no refcount table; it is corrupt");
  const u64 bytes = u64{h.refcount_table_clusters} * h.g.cluster();
  if (bytes > refcount_table_bytes_max)
    return fail(error_kind::corrupt_image,
                "the refcount table of {:#x} bytes is larger than {:#x}; the image is corrupt",
                bytes, refcount_table_bytes_max);
  BGFS_CHECK(check_table(h.g, "the refcount table", h.refcount_table.value, bytes));
  if (use == header_use::check)
    return {};
  if (h.refcount_table.value == 0)
    return fail(error_kind::corrupt_image,
                "the refcount table is at offset 0, where the header is; the image is corrupt");
  if (h.snapshot_count > snapshots_max)
    return fail(error_kind::corrupt_image,
                "the image claims {} snapshots, more than {}; it is corrupt", h.snapshot_count,
                snapshots_max);
  if (h.snapshot_count == 0)
    return {};
  return check_table(h.g, "the snapshot table", h.snapshots.value,
                     h.snapshot_count * sizeof(snapshot_entry_wire));
}

} // namespace

const header_extension* header::find(u32 type) const {
  const auto found = std::ranges::find(extensions, type, &header_extension::type);
  return found == extensions.end() ? nullptr : &*found;
}

std::string header::backing_format() const {
  const header_extension* e = find(extension_type::backing_format);
  return e == nullptr ? std::string() : text_of(e->bytes);
}

std::string header::data_file() const {
  const header_extension* e = find(extension_type::data_file);
  return e == nullptr ? std::string() : text_of(e->bytes);
}

std::vector<feature_name> header::feature_names() const {
  std::vector<feature_name> names;
  const header_extension* e = find(extension_type::feature_names);
  if (e == nullptr)
    return names;
  for (u64 at = 0; at + sizeof(feature_name_wire) <= e->bytes.size();
       at += sizeof(feature_name_wire)) {
    const auto wire = load<feature_name_wire>(e->bytes, at);
    const auto end = std::ranges::find(wire.name, '\0');
    names.push_back({wire.kind, wire.bit, std::string(wire.name.begin(), end)});
    // It goes into messages: only printable text does.
    std::erase_if(names.back().name, [](char c) { return c < ' ' || c > '~'; });
  }
  return names;
}

result<std::optional<bitmap_directory>> header::bitmaps() const {
  const header_extension* e = find(extension_type::bitmaps);
  if ((autoclear & autoclear_bit::bitmaps) == 0)
    return std::nullopt;
  if (e == nullptr || e->bytes.size() != sizeof(bitmaps_extension_wire))
    return fail(error_kind::corrupt_image,
                "the image claims to have bitmaps, but its bitmaps extension has {} bytes, not {}; "
                "the image is corrupt",
                e == nullptr ? 0 : e->bytes.size(), sizeof(bitmaps_extension_wire));
  const auto wire = load<bitmaps_extension_wire>(e->bytes);
  if (wire.bitmap_count == 0 || wire.bitmap_count > bitmaps_max)
    return fail(error_kind::corrupt_image,
                "the image claims {} bitmaps; possible are 1 to {}; the image is corrupt",
                wire.bitmap_count.get(), bitmaps_max);
  if (wire.reserved != 0)
    return fail(error_kind::corrupt_image,
                "the reserved field of the bitmaps extension is {:#x}, not 0; the image is corrupt",
                wire.reserved.get());
  if (wire.directory_length > bitmap_directory_bytes_max)
    return fail(error_kind::corrupt_image,
                "the bitmap directory of {:#x} bytes is larger than {:#x}; the image is corrupt",
                wire.directory_length.get(), bitmap_directory_bytes_max);
  BGFS_CHECK(check_table(g, "the bitmap directory", wire.directory_offset, wire.directory_length));
  if (wire.directory_offset == 0)
    return fail(error_kind::corrupt_image,
                "the bitmap directory is at offset 0, where the header is; the image is corrupt");
  return bitmap_directory{wire.bitmap_count, {wire.directory_offset, wire.directory_length}};
}

result<byte_range> header::crypto_header() const {
  const header_extension* e = find(extension_type::crypto_header);
  if (e == nullptr || e->bytes.size() != sizeof(crypto_extension_wire))
    return fail(error_kind::corrupt_image,
                "the image is encrypted with LUKS, but its pointer to the encryption header has {} "
                "bytes, not {}; the image is corrupt",
                e == nullptr ? 0 : e->bytes.size(), sizeof(crypto_extension_wire));
  const auto wire = load<crypto_extension_wire>(e->bytes);
  if (wire.length == 0 || wire.length > crypto_header_bytes_max)
    return fail(error_kind::corrupt_image,
                "the encryption header is {:#x} bytes long; possible are 1 to {:#x}; the image is "
                "corrupt",
                wire.length.get(), crypto_header_bytes_max);
  BGFS_CHECK(check_table(g, "the encryption header", wire.offset, wire.length));
  if (wire.offset == 0)
    return fail(error_kind::corrupt_image,
                "the encryption header is at offset 0, where the header is; the image is corrupt");
  return byte_range{wire.offset, wire.length};
}

result<u64> header_cluster_bytes(std::span<const std::byte> head) {
  if (head.size() < sizeof(header_v2_wire))
    return fail(error_kind::invalid_image,
                "the file is {} bytes long, a qcow2 header has at least {}", head.size(),
                sizeof(header_v2_wire));
  const auto wire = load<header_v2_wire>(head);
  if (wire.magic != magic)
    return fail(error_kind::invalid_image,
                "not a qcow2 image: it begins with {:#010x}, not with {:#010x} ('QFI\\xfb')",
                wire.magic.get(), magic);
  if (wire.version < 2 || wire.version > 3)
    return fail(error_kind::unsupported, "qcow2 version {} is not supported; supported are 2 and 3",
                wire.version.get());
  if (wire.cluster_bits < cluster_bits_min || wire.cluster_bits > cluster_bits_max)
    return fail(error_kind::corrupt_image,
                "a cluster size of 2^{} bytes is not supported; supported are 2^{} (512 B) to "
                "2^{} (2 MiB)",
                wire.cluster_bits.get(), cluster_bits_min, cluster_bits_max);
  return u64{1} << wire.cluster_bits;
}

result<header> parse_header(std::span<const std::byte> first_cluster, header_use use) {
  BGFS_TRY(const u64 cluster, header_cluster_bytes(first_cluster));
  first_cluster = first_cluster.first(std::min<u64>(first_cluster.size(), cluster));
  const auto wire = load<header_v2_wire>(first_cluster);
  header h;
  h.version = wire.version;
  h.g.cluster_bits = wire.cluster_bits;
  h.disk_length = wire.disk_length;
  h.l1_entries = wire.l1_entries;
  h.l1 = host_offset(wire.l1_offset);
  h.refcount_table = host_offset(wire.refcount_table_offset);
  h.refcount_table_clusters = wire.refcount_table_clusters;
  h.snapshot_count = wire.snapshot_count;
  h.snapshots = host_offset(wire.snapshots_offset);

  u32 header_length = header_length_v2;
  if (h.version >= 3)
    BGFS_CHECK(parse_v3(first_cluster, header_length, h));
  // Extensions end where the backing file name begins (spec, "Header extensions").
  BGFS_CHECK(parse_backing(first_cluster, wire, header_length, h));
  const u64 end = wire.backing_file_offset != 0
                      ? std::min<u64>(wire.backing_file_offset, first_cluster.size())
                      : first_cluster.size();
  BGFS_CHECK(parse_extensions(first_cluster.subspan(header_length, end - header_length),
                              header_length, h));
  BGFS_CHECK(check_features(h, wire.crypt_method, use));
  if (h.version >= 3)
    BGFS_CHECK(parse_additional(
        first_cluster.subspan(compression_type_at, header_length - compression_type_at), h));
  h.encryption = static_cast<encryption_method>(wire.crypt_method.get());
  BGFS_CHECK(check_encryption(h));
  BGFS_CHECK(check_tables(h, use));
  return h;
}

result<std::vector<std::byte>> serialise_header(const header& h) {
  const bool is_v3 = h.version >= 3;
  // Byte 104 is the compression type; the rest up to a multiple of 8 was there or is padding.
  const u64 fields = is_v3 ? std::max<u64>(align_up(1 + h.unknown_fields.size(), 8), 8) : 0;
  const u64 header_length = is_v3 ? header_length_v3_min + fields : header_length_v2;
  const std::vector<std::byte> extensions = serialise_extensions(h.extensions);
  u64 length = header_length + extensions.size();
  const u64 backing_at = length;
  length += h.backing_file.size();
  if (h.backing_file.size() > backing_file_length_max || length > h.g.cluster())
    return fail(error_kind::invalid_argument,
                "the header with its backing file name of {} bytes does not fit into the first "
                "cluster of {} bytes; use a shorter name (at most {} bytes) or larger clusters",
                h.backing_file.size(), h.g.cluster(), backing_file_length_max);

  std::vector<std::byte> out(h.g.cluster());
  header_v2_wire wire;
  wire.magic = magic;
  wire.version = h.version;
  wire.backing_file_offset = h.backing_file.empty() ? 0 : backing_at;
  wire.backing_file_length = static_cast<u32>(h.backing_file.size());
  wire.cluster_bits = h.g.cluster_bits;
  wire.disk_length = h.disk_length;
  wire.crypt_method = static_cast<u32>(h.encryption);
  wire.l1_entries = h.l1_entries;
  wire.l1_offset = h.l1.value;
  wire.refcount_table_offset = h.refcount_table.value;
  wire.refcount_table_clusters = h.refcount_table_clusters;
  wire.snapshot_count = h.snapshot_count;
  wire.snapshots_offset = h.snapshots.value;
  store(out, wire);
  if (is_v3) {
    header_v3_wire v3;
    v3.incompatible = h.incompatible;
    v3.compatible = h.compatible;
    v3.autoclear = h.autoclear;
    v3.refcount_order = h.g.refcount_order;
    v3.header_length = static_cast<u32>(header_length);
    store(out, v3, sizeof wire);
    out[compression_type_at] = static_cast<std::byte>(h.compression);
    std::ranges::copy(h.unknown_fields, out.begin() + compression_type_at + 1);
  }
  std::ranges::copy(extensions, out.begin() + static_cast<i64>(header_length));
  std::ranges::copy(bytes_of(h.backing_file), out.begin() + static_cast<i64>(backing_at));
  return out;
}

std::vector<std::byte> serialise_extensions(std::span<const header_extension> extensions) {
  u64 length = sizeof(extension_wire); // the end marker, all zero
  for (const auto& e : extensions)
    length += sizeof(extension_wire) + align_up(e.bytes.size(), 8);
  std::vector<std::byte> out(length);
  u64 at = 0;
  for (const auto& e : extensions) {
    extension_wire x;
    x.type = e.type;
    x.length = static_cast<u32>(e.bytes.size());
    store(std::span(out), x, at);
    std::ranges::copy(e.bytes, out.begin() + static_cast<i64>(at + sizeof x));
    at += sizeof x + align_up(e.bytes.size(), 8);
  }
  return out;
}

header_extension make_backing_format(std::string_view format) {
  return {extension_type::backing_format, bytes_of(format)};
}

header_extension make_data_file(std::string_view name) {
  return {extension_type::data_file, bytes_of(name)};
}

header_extension make_bitmaps(const bitmap_directory& directory) {
  const bitmaps_extension_wire wire{directory.count, 0, directory.range.length,
                                    directory.range.offset};
  header_extension e{extension_type::bitmaps, std::vector<std::byte>(sizeof wire)};
  store(std::span(e.bytes), wire);
  return e;
}

header_extension make_crypto_header(byte_range host) {
  crypto_extension_wire wire;
  wire.offset = host.offset;
  wire.length = host.length;
  header_extension e{extension_type::crypto_header, std::vector<std::byte>(sizeof wire)};
  store(std::span(e.bytes), wire);
  return e;
}

namespace {

header_extension make_feature_names() {
  struct row {
    u8 kind;
    u8 bit;
    std::string_view name;
  };
  static constexpr row rows[] = {
      {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
      {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
      {2, 0, "bitmaps"},          {2, 1, "raw external data"},
  };
  header_extension e{extension_type::feature_names,
                     std::vector<std::byte>(std::size(rows) * sizeof(feature_name_wire))};
  u64 at = 0;
  for (const row& r : rows) {
    feature_name_wire wire{r.kind, r.bit, {}};
    std::ranges::copy(r.name, wire.name.begin());
    store(std::span(e.bytes), wire, at);
    at += sizeof wire;
  }
  return e;
}

} // namespace

void add_feature_names(header& h) {
  constexpr u64 cluster_min = 8 * KiB;
  if (h.version < 3 || h.g.cluster() < cluster_min)
    return;
  h.extensions.push_back(make_feature_names());
  if (!serialise_header(h))
    h.extensions.pop_back();
}

} // namespace bgfs::qcow2
