// SPDX-License-Identifier: MIT
// GPT (UEFI Specification 2.10, section 5.3): a header in block 1 and a copy of it in the last
// block, each with an array of entries.
#include "graph/base/crc32.h"
#include "graph/base/endian.h"
#include "graph/base/limits.h"
#include "graph/base/partitions/guid.h"
#include "graph/base/partitions/scan.h"

#include <algorithm>
#include <cstring>

namespace bgfs {
namespace {

constexpr std::array<char, 8> gpt_magic = {'E', 'F', 'I', ' ', 'P', 'A', 'R', 'T'};
constexpr u32 header_length_min = 92;

// Table 5.5.
struct gpt_header_wire {
  std::array<char, 8> magic;
  le32 revision;
  le32 header_length;
  le32 header_crc;
  le32 reserved;
  le64 own_block;
  le64 other_block;
  le64 first_usable;
  le64 last_usable;
  guid disk;
  le64 entries_block;
  le32 entry_count;
  le32 entry_length;
  le32 entries_crc;
};
static_assert(sizeof(gpt_header_wire) == header_length_min);

// Table 5.6.
struct gpt_entry_wire {
  guid type;
  guid own;
  le64 first;
  le64 last; // inclusive
  le64 attributes;
  std::array<le16, 36> name;
};
static_assert(sizeof(gpt_entry_wire) == 128);

constexpr u64 attribute_bootable = 4; // bit 2: legacy BIOS

struct gpt_header {
  gpt_header_wire wire{};
  byte_range entries; // inside the disk
};

struct gpt_copy {
  gpt_header header;
  std::span<const std::byte> entries;
};

void append_utf8(std::string& to, u32 c) {
  if (c < 0x80) {
    to += static_cast<char>(c);
    return;
  }
  const unsigned more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  constexpr std::array<u32, 4> lead = {0, 0xc0, 0xe0, 0xf0};
  to += static_cast<char>(lead[more] | (c >> (6 * more)));
  for (unsigned i = more; i-- > 0;)
    to += static_cast<char>(0x80 | ((c >> (6 * i)) & 0x3f));
}

// What is half a pair stands for nothing: U+FFFD.
std::string to_utf8(std::span<const le16> units) {
  std::string text;
  for (std::size_t i = 0; i < units.size() && units[i] != 0; i++) {
    u32 c = units[i];
    const bool is_high = c >= 0xd800 && c < 0xdc00;
    const u32 low = is_high && i + 1 < units.size() ? units[i + 1].get() : 0;
    if (is_high && low >= 0xdc00 && low < 0xe000) {
      c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
      i++;
    } else if (c >= 0xd800 && c < 0xe000) {
      c = 0xfffd;
    }
    append_utf8(text, c);
  }
  return text;
}

// A header at `block`, as far as it can be judged without its entries.
result<gpt_header> parse_header(std::span<const std::byte> bytes, u64 block, u64 sector_length,
                                u64 disk_length) {
  gpt_header h{.wire = load<gpt_header_wire>(bytes), .entries = {}};
  const gpt_header_wire& w = h.wire;
  if (w.magic != gpt_magic)
    return fail(error_kind::invalid_image, "there is none");
  if (w.header_length < header_length_min || w.header_length > sector_length)
    return fail(error_kind::corrupt_image, "it claims {} bytes, {} to {} are possible",
                w.header_length.get(), header_length_min, sector_length);
  std::vector<std::byte> zeroed(bytes.begin(), bytes.begin() + w.header_length);
  store(std::span(zeroed), le32(0), offsetof(gpt_header_wire, header_crc));
  if (const u32 found = crc32_of(zeroed); found != w.header_crc)
    return fail(error_kind::corrupt_image, "its checksum is {:#010x}, its bytes have {:#010x}",
                w.header_crc.get(), found);
  if (w.own_block != block)
    return fail(error_kind::corrupt_image, "it says it lies in block {}", w.own_block.get());
  const u32 length = w.entry_length;
  if (length < sizeof(gpt_entry_wire) || !is_power_of_two(length) || length > gpt_entry_length_max)
    return fail(error_kind::corrupt_image,
                "its entries have {} bytes, 128 times a power of two is possible, {} at most",
                length, gpt_entry_length_max);
  const u64 entries_length = u64{w.entry_count} * length;
  if (entries_length > gpt_entries_length_max)
    return fail(error_kind::unsupported,
                "it has {} entries of {} bytes, {} bytes are taken at most", w.entry_count.get(),
                length, gpt_entries_length_max);
  const auto begin = checked_mul<u64>(w.entries_block, sector_length);
  if (w.entry_count != 0 && (!begin || *begin > disk_length ||
                             entries_length > disk_length - *begin || w.entries_block < 2))
    return fail(error_kind::corrupt_image,
                "its entries would lie in block {}, where the disk has no room for them",
                w.entries_block.get());
  h.entries = {begin.value_or(0), entries_length};
  return h;
}

template<class... Args>
result<gpt_copy> no_copy(error_kind kind, fmt::format_string<Args...> format, Args&&... args) {
  return fail(kind, format, std::forward<Args>(args)...);
}

sampled<result<gpt_copy>> read_copy(const disk_sample& disk, u64 block, u64 sector_length) {
  const auto begin = checked_mul(block, sector_length);
  if (!begin || *begin > disk.disk_length() || disk.disk_length() - *begin < sector_length)
    return no_copy(error_kind::corrupt_image, "block {} is behind the end of the disk", block);
  BGFS_TRY(const auto bytes, disk.bytes({*begin, sector_length}));
  if (bytes.empty())
    return no_copy(error_kind::io, "block {} cannot be read", block);
  result<gpt_header> header = parse_header(bytes, block, sector_length, disk.disk_length());
  if (!header)
    return result<gpt_copy>(fail(std::move(header).error()));
  gpt_copy copy{.header = *header, .entries = {}};
  if (!header->entries.is_empty()) {
    BGFS_TRY(copy.entries, disk.bytes(header->entries));
    if (copy.entries.empty())
      return no_copy(error_kind::io, "its entries at {:#x} cannot be read", header->entries.offset);
  }
  if (const u32 found = crc32_of(copy.entries); found != header->wire.entries_crc)
    return no_copy(error_kind::corrupt_image,
                   "the checksum of its entries is {:#010x}, their bytes have {:#010x}",
                   header->wire.entries_crc.get(), found);
  return copy;
}

void take_entry(const gpt_entry_wire& e, u32 number, const gpt_header_wire& h,
                const disk_sample& disk, partition_table& into) {
  const problem_list problems(into);
  const u64 sector = into.sector_length;
  const u64 blocks_max = device_length_max / sector;
  if (e.first > e.last || e.last >= blocks_max) {
    problems.add(fmt::format("partition {} reaches from block {} to {}, which is impossible: it is "
                             "not shown",
                             number, e.first.get(), e.last.get()));
    return;
  }
  if (e.first < h.first_usable || e.last > h.last_usable)
    problems.add(fmt::format("partition {} lies in blocks {} to {}, outside those that the header "
                             "calls usable ({} to {})",
                             number, e.first.get(), e.last.get(), h.first_usable.get(),
                             h.last_usable.get()));
  partition p;
  p.number = number;
  p.declared = {e.first * sector, (e.last - e.first + 1) * sector};
  p.type = e.type.to_string();
  p.uuid = e.own.is_null() ? "" : e.own.to_string();
  p.label = to_utf8(e.name);
  p.attributes = e.attributes;
  p.is_bootable = (e.attributes & attribute_bootable) != 0;
  settle_place(p, disk, problems);
  into.partitions.push_back(std::move(p));
}

void take(const gpt_copy& copy, u64 sector_length, const disk_sample& disk, partition_table& into) {
  const gpt_header_wire& h = copy.header.wire;
  into.kind = table_kind::gpt;
  into.sector_length = sector_length;
  into.id = h.disk.to_string();
  for (u32 i = 0; i < h.entry_count; i++) {
    const auto e = load<gpt_entry_wire>(copy.entries, std::size_t{i} * h.entry_length);
    if (!e.type.is_null())
      take_entry(e, i + 1, h, disk, into);
  }
}

// The primary one is valid; the other should be where it says, and say the same.
sampled<bool> check_backup(const gpt_copy& primary, u64 sector, const disk_sample& disk,
                           partition_table& into) {
  const problem_list problems(into);
  const u64 last_block = disk.disk_length() / sector - 1;
  const u64 named = primary.header.wire.other_block;
  if (named > last_block) {
    problems.add(fmt::format("the backup GPT belongs into block {}, the disk ends with block {}: "
                             "the disk may have been cut off",
                             named, last_block));
    return true;
  }
  BGFS_TRY(const result<gpt_copy> backup, read_copy(disk, named, sector));
  if (!backup)
    problems.add(fmt::format("the backup GPT in block {} is not valid: {}; 'sgdisk --load-backup' "
                             "or 'gdisk' write it anew",
                             named, backup.error().message()));
  else if (backup->header.wire.entries_crc != primary.header.wire.entries_crc)
    problems.add("the backup GPT names other partitions than the primary one, which counts");
  if (named != last_block)
    problems.add(fmt::format("the backup GPT lies in block {}, not in the last one ({}): the disk "
                             "has grown; 'sgdisk --move-second-header' moves it",
                             named, last_block));
  return true;
}

// Where the backup of a primary one that is not valid may be: where its header says, if that much
// of it is valid, and in the last block.
sampled<std::optional<gpt_copy>> find_backup(const disk_sample& disk, u64 sector) {
  std::vector<u64> blocks = {disk.disk_length() / sector - 1};
  BGFS_TRY(const auto bytes, disk.bytes({sector, sector}));
  if (!bytes.empty())
    if (const auto primary = parse_header(bytes, 1, sector, disk.disk_length()))
      blocks.insert(blocks.begin(), primary->wire.other_block);
  for (const u64 block : blocks) {
    if (block < 2)
      continue;
    BGFS_TRY(const result<gpt_copy> found, read_copy(disk, block, sector));
    if (found)
      return *found;
  }
  return std::nullopt;
}

} // namespace

bool has_gpt_signature(std::span<const std::byte> head, u64 sector_length) {
  return head.size() >= sector_length + gpt_magic.size() &&
         std::memcmp(head.data() + sector_length, gpt_magic.data(), gpt_magic.size()) == 0;
}

sampled<bool> scan_gpt(const disk_sample& disk, partition_table& into) {
  const problem_list problems(into);
  std::vector<std::string> reasons;
  for (const u64 sector : sector_lengths) {
    if (disk.disk_length() / sector < 3)
      continue;
    BGFS_TRY(const result<gpt_copy> primary, read_copy(disk, 1, sector));
    if (primary) {
      take(*primary, sector, disk, into);
      BGFS_TRY([[maybe_unused]] const bool is_done, check_backup(*primary, sector, disk, into));
      return true;
    }
    if (primary.error().kind() != error_kind::invalid_image)
      reasons.push_back(fmt::format("the primary GPT at {:#x} is not valid: {}", sector,
                                    primary.error().message()));
  }
  if (reasons.empty())
    reasons.emplace_back("there is no primary GPT in block 1");
  for (std::string& reason : reasons)
    problems.add(std::move(reason));
  for (const u64 sector : sector_lengths) {
    if (disk.disk_length() / sector < 3)
      continue;
    BGFS_TRY(const std::optional<gpt_copy> backup, find_backup(disk, sector));
    if (!backup)
      continue;
    problems.add(fmt::format("the backup GPT in block {} is used instead; 'sgdisk --load-backup' "
                             "or 'gdisk' write the primary one anew",
                             backup->header.wire.own_block.get()));
    take(*backup, sector, disk, into);
    return true;
  }
  return false;
}

std::string guid::to_string() const {
  constexpr std::array<u8, 16> order = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
  std::string text;
  for (std::size_t i = 0; i < order.size(); i++) {
    if (i == 4 || i == 6 || i == 8 || i == 10)
      text += '-';
    text += fmt::format("{:02x}", bytes[order[i]]);
  }
  return text;
}

} // namespace bgfs
