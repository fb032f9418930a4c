// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/create.h"

#include "drivers/format/qcow2/create_encryption.h"
#include "drivers/format/qcow2/image.h"
#include "drivers/format/qcow2/refcount_block.h"
#include "graph/io/with.h"

#include <bit>

namespace bgfs::qcow2 {

unsigned read_version(const options& given) {
  const std::string& compat = given.text("compat");
  return compat == "0.10" || compat == "v2" ? 2 : 3;
}

result<unsigned> read_refcount_order(const options& given) {
  const u64 bits = given.number("refcount_bits");
  if (!is_power_of_two(bits) || bits > 64)
    return fail(error_kind::invalid_argument,
                "{}'refcount_bits' is {}; it must be 1, 2, 4, 8, 16, 32 or 64",
                given.mark("refcount_bits").prefix(), bits);
  return static_cast<unsigned>(std::countr_zero(bits));
}

namespace {

constexpr std::string_view compat_choices[] = {"0.10", "v2", "1.1", "v3"};
constexpr std::string_view preallocation_choices[] = {"off", "metadata", "falloc", "full"};
constexpr std::string_view compression_choices[] = {"zlib", "zstd"};

constexpr option option_list[] = {
    {.name = "compat",
     .type = option_type::choice,
     .help = "the version: 1.1 (or v3), or 0.10 (or v2) for programs of before 2012",
     .default_text = "1.1",
     .choices = compat_choices},
    {.name = "backing_file",
     .type = option_type::text,
     .help = "the image whose content shows where this one has none; stored as given"},
    {.name = "backing_fmt", .type = option_type::text, .help = "the format of the backing file"},
    {.name = "cluster_size",
     .type = option_type::size,
     .help = "a power of two from 512 to 2M",
     .default_text = "64K"},
    {.name = "preallocation",
     .type = option_type::choice,
     .help = "metadata: give every cluster its place; falloc: reserve the space too; full: write "
             "zeroes to all of it",
     .default_text = "off",
     .choices = preallocation_choices},
    {.name = "lazy_refcounts",
     .type = option_type::boolean,
     .help = "write refcounts only when the image is closed",
     .default_text = "off"},
    {.name = "refcount_bits",
     .type = option_type::integer,
     .help = "width of a reference count: 1, 2, 4, 8, 16, 32 or 64",
     .default_text = "16"},
    {.name = "compression_type",
     .type = option_type::choice,
     .help = "how clusters written compressed are compressed",
     .default_text = "zlib",
     .choices = compression_choices},
    {.name = "extended_l2",
     .type = option_type::boolean,
     .help = "32 subclusters in a cluster, allocated one by one; needs clusters of 16K or more",
     .default_text = "off"},
    {.name = "data_file",
     .type = option_type::text,
     .help = "a file beside the image that holds the disk's data; replaced if it is there"},
    {.name = "data_file_raw",
     .type = option_type::boolean,
     .help = "the data file is a raw image of the disk at all times",
     .default_text = "off"},
    {.name = "keep_data_file",
     .type = option_type::boolean,
     .help = "the data file is there already and stays as it is: the new disk shows its content",
     .default_text = "off"},
};

result<> check_version(const options& given, const header& h) {
  if (h.version >= 3)
    return {};
  if (h.has_lazy_refcounts())
    return fail(error_kind::invalid_argument,
                "{}'lazy_refcounts' needs version 3; use 'compat=1.1'",
                given.mark("lazy_refcounts").prefix());
  if (h.g.refcount_order != 4)
    return fail(error_kind::invalid_argument,
                "{}'refcount_bits' other than 16 needs version 3; use 'compat=1.1'",
                given.mark("refcount_bits").prefix());
  if (h.compression != compression_type::zlib)
    return fail(error_kind::invalid_argument,
                "{}'compression_type' other than zlib needs version 3; use 'compat=1.1'",
                given.mark("compression_type").prefix());
  if (h.g.is_extended)
    return fail(error_kind::invalid_argument, "{}'extended_l2' needs version 3; use 'compat=1.1'",
                given.mark("extended_l2").prefix());
  if (h.has_data_file())
    return fail(error_kind::invalid_argument, "{}'data_file' needs version 3; use 'compat=1.1'",
                given.mark("data_file").prefix());
  return {};
}

result<> read_data_file(const options& given, header& h) {
  const std::string& name = given.text("data_file");
  for (const std::string_view flag : {"data_file_raw", "keep_data_file"})
    if (name.empty() && given.flag(flag))
      return fail(error_kind::invalid_argument, "{}'{}' is given without 'data_file'",
                  given.mark(flag).prefix(), flag);
  if (name.empty())
    return {};
  for (const std::string_view flag : {"data_file_raw", "keep_data_file"})
    if (given.flag(flag) && given.is_set("encrypt.format"))
      return fail(
          error_kind::invalid_argument,
          "{}'{}' and 'encrypt.format' contradict each other: encrypted, the data file holds "
          "something else than the disk",
          given.mark(flag).prefix(), flag);
  h.incompatible |= incompatible_bit::data_file;
  h.extensions.push_back(make_data_file(name));
  if (!given.flag("data_file_raw"))
    return {};
  h.autoclear |= autoclear_bit::raw_data_file;
  if (!given.text("backing_file").empty())
    return fail(error_kind::invalid_argument,
                "{}'data_file_raw' and 'backing_file' contradict each other: a raw data file holds "
                "all of the disk",
                given.mark("data_file_raw").prefix());
  return {};
}

result<> read_geometry(const options& given, header& h) {
  const u64 cluster = given.number("cluster_size");
  if (!is_power_of_two(cluster) || cluster < 1u << cluster_bits_min ||
      cluster > 1u << cluster_bits_max)
    return fail(error_kind::invalid_argument,
                "{}'cluster_size' is {}; it must be a power of two from 512 to 2M",
                given.mark("cluster_size").prefix(), cluster);
  h.g.cluster_bits = static_cast<unsigned>(std::countr_zero(cluster));
  BGFS_TRY(h.g.refcount_order, read_refcount_order(given));
  h.g.is_extended = given.flag("extended_l2");
  if (h.g.is_extended && h.g.cluster_bits < cluster_bits_min_extended)
    return fail(error_kind::invalid_argument,
                "{}'extended_l2' needs clusters of at least 16K; 'cluster_size' is {}",
                given.mark("extended_l2").prefix(), cluster);
  return {};
}

result<> read_backing(const options& given, header& h, header_purpose purpose) {
  h.backing_file = given.text("backing_file");
  const std::string& format = given.text("backing_fmt");
  if (h.backing_file.empty() && !format.empty())
    return fail(error_kind::invalid_argument, "{}'backing_fmt' is given without 'backing_file'",
                given.mark("backing_fmt").prefix());
  if (h.backing_file.empty())
    return {};
  if (format.empty() && purpose == header_purpose::creating)
    return fail(error_kind::invalid_argument,
                "{}'backing_file' is given without 'backing_fmt'; a format is declared, never "
                "guessed",
                given.mark("backing_file").prefix());
  h.extensions.insert(h.extensions.begin(), make_backing_format(format)); // where everybody puts it
  if (given.text("preallocation") != "off" && !h.g.is_extended)
    return fail(error_kind::invalid_argument,
                "{}'preallocation' would hide the backing file; it needs 'extended_l2=on'",
                given.mark("preallocation").prefix());
  return {};
}

} // namespace

// The header of an image of length 0 without an L1 table: cluster 1 is the refcount table, cluster
// 2 the refcount block.
result<header> make_header(const options& given, header_purpose purpose) {
  header h;
  h.version = read_version(given);
  BGFS_CHECK(read_geometry(given, h));
  h.compression =
      given.text("compression_type") == "zstd" ? compression_type::zstd : compression_type::zlib;
  if (given.flag("lazy_refcounts"))
    h.compatible |= compatible_bit::lazy_refcounts;
  BGFS_CHECK(read_data_file(given, h));
  BGFS_CHECK(check_version(given, h));
  if (h.compression != compression_type::zlib)
    h.incompatible |= incompatible_bit::compression;
  if (h.g.is_extended)
    h.incompatible |= incompatible_bit::extended_l2;
  BGFS_CHECK(read_backing(given, h, purpose));
  h.refcount_table = host_offset(h.g.cluster());
  h.refcount_table_clusters = 1;
  return h;
}

result<> check_length(const header& h, u64 length) {
  if (length > device_length_max || h.g.l1_entries_for(length) * 8 > l1_bytes_max)
    return fail(error_kind::invalid_argument,
                "a disk of {} bytes is too long for clusters of {} bytes, with which {} are "
                "possible; use larger clusters",
                length, h.g.cluster(),
                std::min(l1_bytes_max / 8 * h.g.l2_span(), device_length_max));
  return {};
}

// What a kept or a raw data file holds is seen only through clusters in use.
preallocation read_preallocation(const options& given) {
  const std::string& text = given.text("preallocation");
  if (text == "off" && (given.flag("data_file_raw") || given.flag("keep_data_file")))
    return preallocation::metadata;
  if (text == "metadata")
    return preallocation::metadata;
  if (text == "falloc")
    return preallocation::falloc;
  return text == "full" ? preallocation::full : preallocation::off;
}

namespace {

// Grows the empty image to its length, as any image grows.
struct open_image {
  std::unique_ptr<image> opened;
  task<void> release() { return opened->close(); }
};

task<open_image> open_new(create_request request) {
  std::unique_ptr<image> opened =
      co_await image::open({.home = request.home,
                            .file = request.file,
                            .data_file = request.parts.empty() ? nullptr : request.parts.front(),
                            .keeps_data_file = request.given.flag("keep_data_file")});
  co_return open_image{std::move(opened)};
}

} // namespace

namespace {

template<std::size_t A, std::size_t B>
constexpr std::array<option, A + B> joined(const option (&a)[A], const option (&b)[B]) {
  std::array<option, A + B> all;
  std::ranges::copy(a, all.begin());
  std::ranges::copy(b, all.begin() + A);
  return all;
}
constexpr auto all_options = joined(option_list, encryption_options);

} // namespace

const option_schema create_schema{"driver 'qcow2'", all_options};

result<std::vector<new_part>> created_parts(const options& given) {
  std::vector<new_part> parts;
  if (const std::string& name = given.text("data_file"); !name.empty())
    parts.push_back({"data-file", name, given.flag("keep_data_file")});
  return parts;
}

result<> takes_compressed(const options& given) {
  const auto contradicts = [&](std::string_view name, std::string_view why) {
    return fail(error_kind::invalid_argument, "{}'{}' and compression contradict each other: {}",
                given.mark(name).prefix(), name, why);
  };
  if (given.is_set("encrypt.format"))
    return contradicts("encrypt.format", "compressed clusters would not be encrypted");
  if (!given.text("data_file").empty())
    return contradicts("data_file", "every cluster has its own place there");
  if (given.text("preallocation") != "off")
    return contradicts("preallocation", "what is compressed leaves the place it was given");
  return {};
}

result<> takes_bitmaps(const options& given) {
  if (read_version(given) >= 3)
    return {};
  return fail(error_kind::invalid_argument,
              "{}a version 2 image cannot have bitmaps; use 'compat=1.1'",
              given.mark("compat").prefix());
}

task<void> create_image(create_request request) {
  const auto length = checked_align_up(request.length, 512);
  header h = co_await make_header(request.given, header_purpose::creating);
  co_await check_length(h, length.value_or(~u64{0}));
  const std::optional<new_encryption> encryption =
      co_await read_encryption(request.given, request.secrets);
  add_feature_names(h);
  const std::vector<std::byte> first = co_await serialise_header(h);

  const u64 cluster = h.g.cluster();
  std::vector<std::byte> tables(2 * cluster);
  store(std::span(tables), be64(2 * cluster), 0);
  for (u64 c = 0; c < 3; c++)
    store_refcount(std::span(tables).subspan(cluster), h.g.refcount_order, c, 1);
  co_await context(request.file->write(cluster, tables), "writing the refcounts");
  // The header comes last: until it is there, the file is no image.
  co_await request.file->flush();
  co_await context(request.file->write(0, first), "writing the header");
  // Before the disk has a length: nobody shall write to it unencrypted after a crash.
  if (encryption)
    co_await with(open_new(request), [&encryption, &length](open_image& i) {
      return i.opened->set_up_encryption(*encryption, *length);
    });
  truncate_options options;
  options.prealloc = read_preallocation(request.given);
  const u64 wanted = *length;
  co_await with(open_new(request),
                [wanted, options](open_image& i) { return i.opened->truncate(wanted, options); });
}

} // namespace bgfs::qcow2
