// SPDX-License-Identifier: MIT
#include "drivers/format/qcow2/header_switch.h"

#include <algorithm>

namespace bgfs::qcow2 {
namespace {

constexpr u64 sector = 512;                  // what a disk writes whole or not at all
constexpr u64 head = sizeof(extension_wire); // what makes an extension a detour

result<> check_reference(const image_reference& r) {
  if (r.filename.empty() || r.filename.contains('\0'))
    return fail(error_kind::invalid_argument,
                "a backing file name is not empty and contains no zero byte; to have no backing "
                "file, give none");
  if (r.filename.size() > backing_file_length_max)
    return fail(error_kind::invalid_argument,
                "the backing file name is {} bytes long; a qcow2 header holds at most {}",
                r.filename.size(), backing_file_length_max);
  if (r.format.empty())
    return fail(error_kind::invalid_argument,
                "backing file '{}' is given without its format; whoever opens the image would have "
                "to guess it",
                r.filename);
  if (r.format.size() > backing_format_length_max)
    return fail(error_kind::invalid_argument,
                "the backing format '{}' is {} bytes long; a qcow2 header holds at most {}",
                r.format, r.format.size(), backing_format_length_max);
  return {};
}

// The format's extension keeps its place among the others.
void set_backing(header& h, const std::optional<image_reference>& reference) {
  auto& all = h.extensions;
  const auto old = std::ranges::find(all, extension_type::backing_format, &header_extension::type);
  const auto place = old - all.begin();
  std::erase_if(all, [](const auto& e) { return e.type == extension_type::backing_format; });
  h.backing_file = reference ? reference->filename : std::string();
  if (!reference)
    return;
  const auto index = std::min(place, std::ssize(all));
  all.insert(all.begin() + index, make_backing_format(reference->format));
}

void set_bitmaps(header& h, const bitmap_directory* directory) {
  std::erase_if(h.extensions, [](const auto& e) { return e.type == extension_type::bitmaps; });
  h.autoclear &= ~autoclear_bit::bitmaps;
  if (directory == nullptr)
    return;
  // In front, where it lies within the first sector, and the next change is in place.
  h.extensions.insert(h.extensions.begin(), make_bitmaps(*directory));
  h.autoclear |= autoclear_bit::bitmaps;
}

// Where the data of an extension is; the header was parsed.
u64 place_of_extension(std::span<const std::byte> disk, u32 type) {
  u64 at = load<be32>(disk, header_at::header_length);
  for (;;) {
    const auto wire = load<extension_wire>(disk, at);
    if (wire.type == type)
      return at + sizeof wire;
    at = align_up(at + sizeof wire + wire.length, 8);
  }
}

// Only the extension, if it lies within a sector; nullopt: it does not, or is not there.
result<std::optional<header_switch>> plan_bitmaps_in_place(std::span<const std::byte> disk,
                                                           const bitmap_directory* directory) {
  BGFS_TRY(const header now, parse_header(disk));
  BGFS_TRY(const std::optional<bitmap_directory> known, now.bitmaps());
  if (!known || directory == nullptr)
    return std::nullopt;
  const u64 at = place_of_extension(disk, extension_type::bitmaps);
  constexpr u64 length = sizeof(bitmaps_extension_wire);
  if (at / sector != (at + length - 1) / sector)
    return std::nullopt;
  header_switch s{.after = now, .fields_at = at};
  const auto old = disk.subspan(at, length);
  s.before.assign(old.begin(), old.end());
  s.settled = make_bitmaps(*directory).bytes;
  std::ranges::find(s.after.extensions, extension_type::bitmaps, &header_extension::type)->bytes =
      s.settled;
  return s;
}

struct layout {
  std::vector<std::byte> header; // the fields, as they will be
  u64 header_length = 0;
  u64 old_end = 0; // of what is in force
  std::vector<std::byte> extensions;
  std::vector<std::byte> content; // extensions and name
  bool has_name = false;

  // The header's fields and the first extension's head, with `first` in its place and the name
  // behind extensions that begin at `extensions_at`.
  [[nodiscard]] std::vector<std::byte> fields(std::span<const std::byte> first,
                                              u64 extensions_at) const {
    std::vector<std::byte> out = header;
    const u64 name_length = content.size() - extensions.size();
    store(std::span(out), be64(has_name ? extensions_at + extensions.size() : 0),
          header_at::backing_file_offset);
    store(std::span(out), be32(static_cast<u32>(name_length)), header_at::backing_file_length);
    out.insert(out.end(), first.begin(), first.end());
    out.erase(out.begin(), out.begin() + header_at::version);
    return out;
  }
};

u64 header_length_of(unsigned version, std::span<const std::byte> fields) {
  return version < 3 ? header_length_v2 : u64{load<be32>(fields, header_at::header_length)};
}

// Of the same version, all that is not known stays as it is on the disk.
result<std::vector<std::byte>> make_fields(std::span<const std::byte> disk, const header& now,
                                           const header& after) {
  std::vector<std::byte> fields(disk.begin(), disk.end());
  if (now.version != after.version) {
    header plain = after; // what follows the fields is laid out by the caller
    plain.extensions.clear();
    plain.backing_file.clear();
    BGFS_TRY(fields, serialise_header(plain));
  }
  fields.resize(header_length_of(after.version, fields));
  if (after.version < 3)
    return fields;
  store(std::span(fields), be64(after.incompatible), header_at::incompatible);
  store(std::span(fields), be64(after.compatible), header_at::compatible);
  store(std::span(fields), be64(after.autoclear), header_at::autoclear);
  return fields;
}

result<layout> lay_out(std::span<const std::byte> disk, const header& now, const header& after) {
  layout l;
  BGFS_TRY(l.header, make_fields(disk, now, after));
  l.header_length = l.header.size();
  const auto wire = load<header_v2_wire>(disk);
  l.old_end = header_length_of(now.version, disk) + serialise_extensions(now.extensions).size();
  if (!now.backing_file.empty())
    l.old_end = std::max<u64>(l.old_end, wire.backing_file_offset + now.backing_file.size());
  l.old_end = std::min<u64>(l.old_end, disk.size());
  l.extensions = serialise_extensions(after.extensions);
  l.content = l.extensions;
  for (const char c : after.backing_file)
    l.content.push_back(static_cast<std::byte>(c));
  l.has_name = !after.backing_file.empty();
  if (l.header_length + l.content.size() > disk.size())
    return fail(error_kind::invalid_argument,
                "the header with its backing file name of {} bytes does not fit into the first "
                "cluster of {} bytes; use a shorter name",
                after.backing_file.size(), disk.size());
  return l;
}

} // namespace

result<header_switch> plan_header_switch(std::span<const std::byte> first_cluster,
                                         const std::optional<image_reference>& reference) {
  if (reference)
    BGFS_CHECK(check_reference(*reference));
  return plan_header_switch(first_cluster, [&](header& h) { set_backing(h, reference); });
}

result<header_switch> plan_header_switch(std::span<const std::byte> first_cluster,
                                         const std::function<void(header&)>& change) {
  BGFS_TRY(const header now, parse_header(first_cluster));
  header_switch s{.after = now};
  std::erase_if(s.after.extensions, [](const auto& e) { return e.type == extension_type::detour; });
  change(s.after);
  if (first_cluster.size() < now.g.cluster())
    return fail(error_kind::corrupt_image,
                "the file is {} bytes long, less than a cluster of {}; the image is truncated",
                first_cluster.size(), now.g.cluster());
  BGFS_TRY(const layout l, lay_out(first_cluster, now, s.after));
  const u64 new_end = l.header_length + l.content.size();
  s.fields_at = header_at::version;
  s.leftover = byte_range::between(new_end, std::max(new_end, l.old_end));
  if (std::max(new_end, l.old_end) <= sector) {
    s.settled = l.fields(l.content, l.header_length);
    s.settled.resize(s.settled.size() + s.leftover.length);
    const auto from = first_cluster.subspan(s.fields_at, s.settled.size());
    s.before.assign(from.begin(), from.end());
    s.leftover = {};
    return s;
  }
  s.staged_at = align_up(std::max(new_end, l.old_end), 8);
  if (l.header_length + head > sector || s.staged_at + l.content.size() > first_cluster.size())
    return fail(error_kind::invalid_argument,
                "the first cluster of {} bytes has no room for a header of {} bytes beside the one "
                "in force, which ends at {}, so that a crash could destroy both; use a shorter "
                "name, or an image with larger clusters",
                first_cluster.size(), new_end, l.old_end);
  s.staged = l.content;
  const auto from = first_cluster.subspan(s.fields_at, l.header_length + head - s.fields_at);
  s.before.assign(from.begin(), from.end());
  std::array<std::byte, head> detour{};
  extension_wire wire;
  wire.type = extension_type::detour;
  wire.length = static_cast<u32>(s.staged_at - l.header_length - head);
  store(std::span<std::byte>(detour), wire);
  s.switched = l.fields(detour, s.staged_at);
  s.settled = l.fields(std::span(l.content).first(head), l.header_length);
  s.body_at = l.header_length + head;
  s.body.assign(l.content.begin() + static_cast<i64>(head), l.content.end());
  s.leftover = byte_range::between(new_end, s.staged_at + l.content.size());
  return s;
}

result<header_switch> plan_bitmaps_switch(std::span<const std::byte> first_cluster,
                                          const bitmap_directory* directory) {
  BGFS_TRY(std::optional<header_switch> in_place, plan_bitmaps_in_place(first_cluster, directory));
  if (in_place)
    return *std::move(in_place);
  result<header_switch> planned =
      plan_header_switch(first_cluster, [&](header& h) { set_bitmaps(h, directory); });
  if (!planned && planned.error().kind() == error_kind::invalid_argument)
    planned = plan_header_switch(first_cluster, [&](header& h) {
      set_bitmaps(h, directory);
      // What gives the bits of the header names for people, and nothing else, makes room.
      std::erase_if(h.extensions,
                    [](const auto& e) { return e.type == extension_type::feature_names; });
    });
  if (planned || planned.error().kind() != error_kind::invalid_argument)
    return planned;
  BGFS_TRY(const header now, parse_header(first_cluster));
  return fail(error_kind::unsupported,
              "the header, with a backing file name of {} bytes, leaves no room for the place of "
              "the bitmaps in the first cluster of {} bytes; use an image with larger clusters",
              now.backing_file.size(), first_cluster.size());
}

} // namespace bgfs::qcow2
