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
  std::erase_if(all, [](const auto& e) { return e.type == extension_type::detour; });
  const auto old = std::ranges::find(all, extension_type::backing_format, &header_extension::type);
  const auto place = old - all.begin();
  std::erase_if(all, [](const auto& e) { return e.type == extension_type::backing_format; });
  h.backing_file = reference ? reference->filename : std::string();
  if (!reference)
    return;
  const auto index = std::min(place, std::ssize(all));
  all.insert(all.begin() + index, make_backing_format(reference->format));
}

struct layout {
  std::span<const std::byte> disk; // the first cluster
  u64 header_length = 0;
  u64 old_end = 0; // of what is in force
  std::vector<std::byte> extensions;
  std::vector<std::byte> content; // extensions and name
  bool has_name = false;
  std::optional<u64> autoclear; // of version 3

  // The header's fields and the first extension's head, with `first` in its place and the name
  // behind extensions that begin at `extensions_at`.
  [[nodiscard]] std::vector<std::byte> fields(std::span<const std::byte> first,
                                              u64 extensions_at) const {
    std::vector<std::byte> out(disk.begin(), disk.begin() + static_cast<i64>(header_length));
    const u64 name_length = content.size() - extensions.size();
    store(std::span(out), be64(has_name ? extensions_at + extensions.size() : 0),
          header_at::backing_file_offset);
    store(std::span(out), be32(static_cast<u32>(name_length)), header_at::backing_file_length);
    if (autoclear)
      store(std::span(out), be64(*autoclear), header_at::autoclear);
    out.insert(out.end(), first.begin(), first.end());
    out.erase(out.begin(), out.begin() + header_at::backing_file_offset);
    return out;
  }
};

result<layout> lay_out(std::span<const std::byte> disk, const header& now, const header& after) {
  layout l{.disk = disk};
  l.header_length =
      now.version < 3 ? header_length_v2 : u64{load<be32>(disk, header_at::header_length)};
  const auto wire = load<header_v2_wire>(disk);
  l.old_end = l.header_length + serialise_extensions(now.extensions).size();
  if (!now.backing_file.empty())
    l.old_end = std::max<u64>(l.old_end, wire.backing_file_offset + now.backing_file.size());
  l.old_end = std::min<u64>(l.old_end, disk.size());
  l.extensions = serialise_extensions(after.extensions);
  l.content = l.extensions;
  for (const char c : after.backing_file)
    l.content.push_back(static_cast<std::byte>(c));
  l.has_name = !after.backing_file.empty();
  if (after.version >= 3)
    l.autoclear = after.autoclear;
  if (l.header_length + l.content.size() > disk.size())
    return fail(error_kind::invalid_argument,
                "the header with its backing file name of {} bytes does not fit into the first "
                "cluster of {} bytes; use a shorter name",
                after.backing_file.size(), disk.size());
  return l;
}

void set_bitmaps(header& h, const bitmap_directory* directory) {
  std::erase_if(h.extensions, [](const auto& e) {
    return e.type == extension_type::detour || e.type == extension_type::bitmaps;
  });
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

result<header_switch> plan(std::span<const std::byte> first_cluster, const header& now,
                           header after) {
  header_switch s{.after = std::move(after)};
  if (first_cluster.size() < now.g.cluster())
    return fail(error_kind::corrupt_image,
                "the file is {} bytes long, less than a cluster of {}; the image is truncated",
                first_cluster.size(), now.g.cluster());
  BGFS_TRY(const layout l, lay_out(first_cluster, now, s.after));
  const u64 new_end = l.header_length + l.content.size();
  s.fields_at = header_at::backing_file_offset;
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

} // namespace

result<header_switch> plan_header_switch(std::span<const std::byte> first_cluster,
                                         const std::optional<image_reference>& reference) {
  if (reference)
    BGFS_CHECK(check_reference(*reference));
  BGFS_TRY(const header now, parse_header(first_cluster));
  header after = now;
  set_backing(after, reference);
  return plan(first_cluster, now, std::move(after));
}

result<header_switch> plan_bitmaps_switch(std::span<const std::byte> first_cluster,
                                          const bitmap_directory* directory) {
  BGFS_TRY(const header now, parse_header(first_cluster));
  BGFS_TRY(const std::optional<bitmap_directory> known, now.bitmaps());
  if (known && directory != nullptr) {
    const u64 at = place_of_extension(first_cluster, extension_type::bitmaps);
    constexpr u64 length = sizeof(bitmaps_extension_wire);
    if (at / sector == (at + length - 1) / sector) {
      header_switch s{.after = now, .fields_at = at};
      const auto old = first_cluster.subspan(at, length);
      s.before.assign(old.begin(), old.end());
      s.settled = make_bitmaps(*directory).bytes;
      std::ranges::find(s.after.extensions, extension_type::bitmaps, &header_extension::type)
          ->bytes = s.settled;
      return s;
    }
  }
  header after = now;
  set_bitmaps(after, directory);
  result<header_switch> planned = plan(first_cluster, now, after);
  if (!planned && planned.error().kind() == error_kind::invalid_argument) {
    // What gives the bits of the header names for people, and nothing else, makes room.
    std::erase_if(after.extensions,
                  [](const auto& e) { return e.type == extension_type::feature_names; });
    planned = plan(first_cluster, now, std::move(after));
  }
  if (!planned && planned.error().kind() == error_kind::invalid_argument)
    return fail(error_kind::unsupported,
                "the header, with a backing file name of {} bytes, leaves no room for the place of "
                "the bitmaps in the first cluster of {} bytes; use an image with larger clusters",
                now.backing_file.size(), first_cluster.size());
  return planned;
}

} // namespace bgfs::qcow2
