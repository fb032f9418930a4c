// SPDX-License-Identifier: MIT
// A disk in memory with a partition table, and what a scan makes of it.
#pragma once

#include "graph/base/crc32.h"
#include "graph/base/endian.h"
#include "graph/base/partitions/partition_table.h"

#include <doctest/doctest.h>

#include <cstring>
#include <functional>

namespace bgfs {

struct made_entry {
  u64 first, last; // blocks
  std::string name = {};
  u8 type = 0xaf; // the first byte of its GUID
};

class made_disk {
public:
  explicit made_disk(u64 length, u64 sector_length = 512) : bytes(length), sector(sector_length) {}

  template<class T>
  made_disk& put(u64 offset, T value) {
    store(std::span(bytes), value, offset);
    return *this;
  }
  made_disk& magic(u64 offset = 0) { return put(offset + 510, le16(0xaa55)); }
  made_disk& mbr_entry(u64 record, unsigned i, u8 type, u32 first, u32 count, u8 flag = 0) {
    const u64 at = record + 446 + u64{i} * 16;
    magic(record).put(at, flag).put(at + 4, type);
    return put(at + 8, le32(first)).put(at + 12, le32(count));
  }
  made_disk& protect() { return mbr_entry(0, 0, 0xee, 1, ~u32{0}); }

  u64 last_block() const { return bytes.size() / sector - 1; }
  u64 entries_length = 128;
  u32 entry_count = 128;
  void write_entries(u64 block, const std::vector<made_entry>& entries) {
    for (std::size_t i = 0; i < entries.size(); i++) {
      const made_entry& e = entries[i];
      if (e.last == 0)
        continue;
      const u64 at = block * sector + i * entries_length;
      put(at, e.type).put(at + 16, static_cast<u8>(i + 1));
      put(at + 32, le64(e.first)).put(at + 40, le64(e.last));
      for (std::size_t c = 0; c < e.name.size(); c++)
        put(at + 56 + 2 * c, le16(static_cast<u8>(e.name[c])));
    }
  }
  void write_header(u64 block, u64 other, u64 entries_block) {
    const u64 at = block * sector;
    std::memcpy(bytes.data() + at, "EFI PART", 8);
    put(at + 8, le32(0x10000)).put(at + 12, le32(92));
    put(at + 24, le64(block)).put(at + 32, le64(other));
    put(at + 40, le64(34)).put(at + 48, le64(last_block() - 33));
    put(at + 56, static_cast<u8>(0xdd)).put(at + 72, le64(entries_block));
    put(at + 80, le32(entry_count)).put(at + 84, le32(static_cast<u32>(entries_length)));
    seal(block);
  }
  // Makes both checksums of the header right.
  void seal(u64 block) {
    const u64 at = block * sector;
    const u64 entries = load<le64>(bytes, at + 72) * sector;
    const u64 length = u64{load<le32>(bytes, at + 80)} * load<le32>(bytes, at + 84);
    if (entries <= bytes.size() && length <= bytes.size() - entries)
      put(at + 88, le32(crc32_of(std::span(bytes).subspan(entries, length))));
    put(at + 16, le32(0));
    const u32 header_length = load<le32>(bytes, at + 12);
    if (header_length <= sector)
      put(at + 16, le32(crc32_of(std::span(bytes).subspan(at, header_length))));
  }
  made_disk& gpt(const std::vector<made_entry>& entries) {
    protect();
    const u64 blocks = entries_length * entry_count / sector;
    write_entries(2, entries);
    write_header(1, last_block(), 2);
    write_entries(last_block() - blocks, entries);
    write_header(last_block(), 1, last_block() - blocks);
    return *this;
  }

  partition_table scan() const {
    disk_sample sample(bytes.size());
    for (unsigned i = 0; i < 2000; i++) {
      auto found = scan_partition_table(sample);
      if (found)
        return *found;
      const byte_range r = found.error();
      const bool is_bad = std::ranges::any_of(unreadable, [&](auto u) { return u.overlaps(r); });
      const auto part = std::span(bytes).subspan(r.offset, r.length);
      sample.add(r, is_bad ? std::vector<std::byte>() : std::vector(part.begin(), part.end()));
    }
    FAIL("a scan does not end");
    return {};
  }

  std::vector<std::byte> bytes;
  u64 sector;
  std::vector<byte_range> unreadable;
};

inline bool has_problem(const partition_table& t, std::string_view part) {
  for (const std::string& p : t.problems)
    if (p.find(part) != std::string::npos)
      return true;
  return false;
}

} // namespace bgfs
