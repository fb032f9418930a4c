// SPDX-License-Identifier: MIT
#include "tests/unit/drivers/qcow2/image_editor.h"

#include <algorithm>
#include <doctest/doctest.h>

namespace bgfs::test {

using namespace qcow2;

image_editor::image_editor(std::vector<std::byte>& bytes) : bytes_(bytes) {
  auto parsed = parse_header(bytes);
  REQUIRE(parsed.has_value());
  header_ = *std::move(parsed);
  REQUIRE(header_.g.refcount_order == 4);
  bytes_.resize(align_up(bytes_.size(), cluster()));
}

u64 image_editor::number(u64 at) const {
  return load<be64>(bytes_, at);
}
void image_editor::put(u64 at, u64 value) {
  store(std::span(bytes_), be64(value), at);
}

void image_editor::add_refcount(u64 host, int by) {
  const u64 index = host / cluster();
  REQUIRE(index < header_.g.block_entries());
  const u64 at = number(header_.refcount_table.value) + index * 2;
  store(std::span(bytes_), be16(static_cast<u16>(load<be16>(bytes_, at) + by)), at);
}

u64 image_editor::append(u64 clusters) {
  const u64 at = bytes_.size();
  bytes_.resize(at + clusters * cluster());
  for (u64 i = 0; i < clusters; i++)
    add_refcount(at + i * cluster(), 1);
  return at;
}

u64 image_editor::entry_at(u64 guest) const {
  const geometry& g = header_.g;
  const u64 table =
      number(header_.l1.value + g.l1_index(guest_offset(guest)) * 8) & entry_offset_mask;
  REQUIRE(table != 0);
  return table + g.l2_index(guest_offset(guest)) * g.l2_entry_bytes();
}

void image_editor::add_snapshot(const std::string& name) {
  const u64 l1_bytes = u64{header_.l1_entries} * 8;
  const u64 copy = append(divide_up(l1_bytes, cluster()));
  const u64 table = append(1);
  for (u64 i = 0; i < header_.l1_entries; i++) {
    const u64 at = header_.l1.value + i * 8;
    const u64 l2 = number(at) & entry_offset_mask;
    put(at, number(at) & ~entry_copied);
    put(copy + i * 8, l2);
    if (l2 == 0)
      continue;
    add_refcount(l2, 1);
    for (u64 j = 0; j < cluster(); j += header_.g.l2_entry_bytes()) {
      const u64 entry = number(l2 + j);
      if ((entry & entry_compressed) == 0 && (entry & entry_offset_mask) != 0) {
        put(l2 + j, entry & ~entry_copied);
        add_refcount(entry & entry_offset_mask, 1);
      }
    }
  }
  snapshot_entry_wire wire{copy, header_.l1_entries, 1, static_cast<u16>(name.size()), 0, 0, 0, 0,
                           16};
  store(std::span(bytes_), wire, table);
  put(table + sizeof wire + 8, header_.disk_length);
  bytes_[table + 56] = std::byte{'1'};
  for (std::size_t i = 0; i < name.size(); i++)
    bytes_[table + 57 + i] = static_cast<std::byte>(name[i]);
  store(std::span(bytes_), be32(1), 60);
  put(64, table);
  header_.snapshot_count = 1;
  header_.snapshots = host_offset(table);
}

std::vector<std::byte> image_editor::as_snapshot() const {
  std::vector<std::byte> image = bytes_;
  const auto wire = load<snapshot_entry_wire>(image, header_.snapshots.value);
  store(std::span(image), be64(wire.l1_offset), 40);
  store(std::span(image), be32(wire.l1_entries), 36);
  store(std::span(image), be64(number(header_.snapshots.value + sizeof wire + 8)), 24);
  return image;
}

void image_editor::add_compressed(u64 guest, std::span<const std::byte> stream, u64 sector_offset) {
  const u64 clusters = divide_up(sector_offset + stream.size(), cluster());
  const u64 at = append(clusters) + sector_offset;
  std::ranges::copy(stream, bytes_.begin() + static_cast<i64>(at));
  const u64 sectors = (at + stream.size() - 1) / 512 - at / 512;
  const unsigned x = 62 - (header_.g.cluster_bits - 8);
  put(entry_at(guest), entry_compressed | sectors << x | at);
}

void image_editor::add_bitmap(const std::string& name) {
  const u64 table = append(1);
  const u64 directory = append(1);
  bitmap_entry_wire entry{table, 1, 0, 1, 16, static_cast<u16>(name.size()), 0};
  store(std::span(bytes_), entry, directory);
  for (std::size_t i = 0; i < name.size(); i++)
    bytes_[directory + sizeof entry + i] = static_cast<std::byte>(name[i]);
  qcow2::header h = header_;
  bitmaps_extension_wire extension{1, 0, align_up(sizeof entry + name.size(), 8), directory};
  std::vector<std::byte> data(sizeof extension);
  store(std::span(data), extension);
  h.extensions.push_back({extension_type::bitmaps, data});
  h.autoclear |= autoclear_bit::bitmaps;
  write_header(h);
}

void image_editor::write_header(const qcow2::header& h) {
  const auto first = serialise_header(h);
  REQUIRE(first.has_value());
  std::ranges::copy(*first, bytes_.begin());
  header_ = h;
}

} // namespace bgfs::test
