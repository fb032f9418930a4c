// SPDX-License-Identifier: MIT
// The table in the first sector (UEFI Specification 2.10, section 5.2; the boot sector of PC DOS),
// and the chain of extended boot records, each of which describes one logical partition and names
// the next record.
#include "graph/base/endian.h"
#include "graph/base/partitions/boot_sector.h"
#include "graph/base/partitions/scan.h"

#include <algorithm>
#include <set>

namespace bgfs {
namespace {

struct mbr_entry_wire {
  u8 boot_flag;
  std::array<u8, 3> first_chs;
  u8 type;
  std::array<u8, 3> last_chs;
  le32 first; // sector; in an extended boot record relative to something
  le32 count;
};
static_assert(sizeof(mbr_entry_wire) == 16);

struct mbr_wire {
  std::array<u8, 440> code;
  le32 signature;
  le16 reserved;
  std::array<mbr_entry_wire, 4> entries;
  std::array<u8, 2> magic;
};
static_assert(sizeof(mbr_wire) == 512);

constexpr u8 type_protective = 0xee;

bool is_extended(u8 type) {
  return type == 0x05 || type == 0x0f || type == 0x85;
}
bool has_magic(const mbr_wire& m) {
  return m.magic[0] == 0x55 && m.magic[1] == 0xaa;
}
bool is_used(const mbr_entry_wire& e) {
  return e.type != 0 && e.count != 0;
}

// The numbers of an entry have 32 bits: no product with a sector's length overflows.
byte_range range_of(u64 first, u64 count, u64 sector_length) {
  return {first * sector_length, count * sector_length};
}

partition make_partition(u32 number, const mbr_entry_wire& e, byte_range declared, u32 signature) {
  partition p;
  p.number = number;
  p.declared = declared;
  p.type = fmt::format("{:#04x}", e.type);
  if (signature != 0)
    p.uuid = fmt::format("{:08x}-{:02x}", signature, number);
  p.is_bootable = e.boot_flag == 0x80;
  p.is_container = is_extended(e.type);
  return p;
}

// Follows the records of one extended partition.
class extended_chain {
public:
  extended_chain(const disk_sample& disk, partition_table& into, u32 signature, byte_range place)
      : disk_(disk), table_(into), problems_(into), signature_(signature), place_(place) {}

  sampled<bool> follow(u32 number) {
    u64 at = place_.offset;
    std::set<u64> seen;
    for (unsigned count = 0; count < logical_partitions_max; count++) {
      if (!seen.insert(at).second) {
        problems_.add(fmt::format("the chain of extended boot records comes back to the one at "
                                  "{:#x}: it ends there",
                                  at));
        return true;
      }
      BGFS_TRY(const std::optional<mbr_wire> record, read(at));
      if (!record)
        return true;
      const std::optional<u64> next = take(*record, at, number);
      if (!next)
        return true;
      at = *next;
    }
    problems_.add(fmt::format("more than {} extended boot records follow each other: the rest is "
                              "not shown",
                              logical_partitions_max));
    return true;
  }

private:
  sampled<std::optional<mbr_wire>> read(u64 at) {
    const byte_range where{at, sizeof(mbr_wire)};
    if (!byte_range{0, disk_.disk_length()}.contains(where)) {
      problems_.add(fmt::format("an extended boot record would lie at {:#x}, behind the end of the "
                                "disk ({:#x}): the logical partitions end there",
                                at, disk_.disk_length()));
      return std::nullopt;
    }
    BGFS_TRY(const auto bytes, disk_.bytes(where));
    if (bytes.empty()) {
      problems_.add(fmt::format("the extended boot record at {:#x} cannot be read: the logical "
                                "partitions end there",
                                at));
      return std::nullopt;
    }
    const auto record = load<mbr_wire>(bytes);
    if (has_magic(record))
      return record;
    problems_.add(fmt::format("there is no extended boot record at {:#x}: the logical partitions "
                              "end there",
                              at));
    return std::nullopt;
  }

  // Adds the logical partition; where the next record is.
  std::optional<u64> take(const mbr_wire& record, u64 at, u32& number) {
    std::optional<u64> next;
    for (const mbr_entry_wire& e : record.entries) {
      if (!is_used(e))
        continue;
      const u64 sector = table_.sector_length;
      if (is_extended(e.type)) {
        // Relative to the first record. Only the first such entry counts.
        if (!next)
          next = place_.offset + e.first * sector;
        continue;
      }
      byte_range declared = range_of(e.first, e.count, sector);
      declared.offset += at; // relative to this record
      const bool is_third = &e - record.entries.data() >= 2;
      if (is_third && !place_.contains(declared))
        continue; // what tools leave there by accident
      if (!place_.contains(declared))
        problems_.add(fmt::format("logical partition {} lies at [{:#x}, {:#x}), outside its "
                                  "extended partition at [{:#x}, {:#x})",
                                  number, declared.offset, declared.end(), place_.offset,
                                  place_.end()));
      partition p = make_partition(number++, e, declared, signature_);
      settle_place(p, disk_, problems_);
      table_.partitions.push_back(std::move(p));
    }
    return next;
  }

  const disk_sample& disk_;
  partition_table& table_;
  problem_list problems_;
  u32 signature_;
  byte_range place_;
};

// A table does not say what it counts in. Where there is an extended partition, the record that
// must lie there does; otherwise it is 512 bytes.
sampled<u64> find_sector_length(const disk_sample& disk, const mbr_wire& mbr) {
  for (const mbr_entry_wire& e : mbr.entries) {
    if (!is_used(e) || !is_extended(e.type))
      continue;
    for (const u64 length : {u64{512}, u64{4096}}) {
      const byte_range where{e.first * length, sizeof(mbr_wire)};
      if (!byte_range{0, disk.disk_length()}.contains(where))
        continue;
      BGFS_TRY(const auto bytes, disk.bytes(where));
      if (!bytes.empty() && has_magic(load<mbr_wire>(bytes)))
        return length;
    }
  }
  return 512;
}

} // namespace

bool has_mbr(std::span<const std::byte> sector) {
  const auto mbr = load<mbr_wire>(sector);
  const auto is_possible = [](const mbr_entry_wire& e) {
    return e.boot_flag == 0 || e.boot_flag == 0x80;
  };
  // AIX marks its disks with "IBMA" in EBCDIC; what else is there is no table.
  const bool is_aix =
      mbr.code[0] == 0xc9 && mbr.code[1] == 0xc2 && mbr.code[2] == 0xd4 && mbr.code[3] == 0xc1;
  return has_magic(mbr) && !is_aix && std::ranges::all_of(mbr.entries, is_possible) &&
         !is_file_system_boot_sector(sector);
}

bool is_protective(std::span<const std::byte> sector) {
  const auto mbr = load<mbr_wire>(sector);
  return std::ranges::any_of(mbr.entries,
                             [](const mbr_entry_wire& e) { return e.type == type_protective; });
}

unsigned count_hybrid(std::span<const std::byte> sector) {
  const auto mbr = load<mbr_wire>(sector);
  return static_cast<unsigned>(std::ranges::count_if(mbr.entries, [](const mbr_entry_wire& e) {
    return is_used(e) && e.type != type_protective;
  }));
}

sampled<bool> scan_mbr(const disk_sample& disk, std::span<const std::byte> head,
                       partition_table& into) {
  const auto mbr = load<mbr_wire>(head);
  const problem_list problems(into);
  BGFS_TRY(into.sector_length, find_sector_length(disk, mbr));
  into.kind = table_kind::mbr;
  if (mbr.signature != 0)
    into.id = fmt::format("{:#010x}", mbr.signature.get());
  for (u32 i = 0; i < mbr.entries.size(); i++) {
    const mbr_entry_wire& e = mbr.entries[i];
    if (!is_used(e))
      continue;
    partition p =
        make_partition(i + 1, e, range_of(e.first, e.count, into.sector_length), mbr.signature);
    settle_place(p, disk, problems);
    into.partitions.push_back(std::move(p));
  }
  u32 next_number = 5;
  for (u32 i = 0; i < mbr.entries.size(); i++) {
    const mbr_entry_wire& e = mbr.entries[i];
    if (!is_used(e) || !is_extended(e.type))
      continue;
    extended_chain chain(disk, into, mbr.signature, range_of(e.first, e.count, into.sector_length));
    BGFS_TRY([[maybe_unused]] const bool is_done, chain.follow(next_number));
    next_number = std::max(next_number, into.partitions.back().number + 1);
  }
  return true;
}

} // namespace bgfs
