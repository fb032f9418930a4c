// SPDX-License-Identifier: MIT
#include "graph/base/partitions/partition_table.h"

#include "graph/base/partitions/scan.h"

#include <algorithm>

namespace bgfs {
namespace {

// Holds the MBR, and block 1 of all lengths of sectors.
constexpr u64 head_length = 8192;

void report_overlaps(partition_table& table) {
  std::vector<const partition*> by_place;
  for (const partition& p : table.partitions)
    if (p.has_bytes())
      by_place.push_back(&p);
  std::ranges::sort(by_place, {}, [](const partition* p) { return p->place.offset; });
  const problem_list problems(table);
  const partition* widest = nullptr; // of those before, the one that ends last
  for (const partition* p : by_place) {
    if (widest != nullptr && widest->place.overlaps(p->place))
      problems.add(fmt::format("partitions {} and {} overlap: [{:#x}, {:#x}) and [{:#x}, {:#x})",
                               widest->number, p->number, widest->place.offset, widest->place.end(),
                               p->place.offset, p->place.end()));
    if (widest == nullptr || p->place.end() > widest->place.end())
      widest = p;
  }
}

sampled<bool> scan_behind_mbr(const disk_sample& disk, std::span<const std::byte> head,
                              partition_table& table) {
  const problem_list problems(table);
  const auto sector = head.first(512);
  if (is_protective(sector)) {
    BGFS_TRY(const bool is_gpt, scan_gpt(disk, table));
    const unsigned others = count_hybrid(sector);
    if (is_gpt && others > 0)
      problems.add(fmt::format("the MBR names {} of the partitions as well (a hybrid MBR); the GPT "
                               "counts",
                               others));
    if (!is_gpt)
      problems.add("the MBR only protects a GPT, and there is no valid one: no partition is shown; "
                   "'sgdisk --verify' and 'gdisk' may repair it");
    return true;
  }
  for (const u64 length : sector_lengths)
    if (has_gpt_signature(head, length))
      problems.add(fmt::format("a GPT header lies at {:#x}, but the MBR does not protect it: it is "
                               "what an older table has left, and does not count",
                               length));
  return scan_mbr(disk, head, table);
}

} // namespace

std::string_view to_string(table_kind kind) {
  switch (kind) {
  case table_kind::none:
    return "none";
  case table_kind::mbr:
    return "mbr";
  case table_kind::gpt:
    return "gpt";
  }
  return "?";
}

const partition* partition_table::find(u32 number) const {
  const auto at = std::ranges::lower_bound(partitions, number, {}, &partition::number);
  return at != partitions.end() && at->number == number ? &*at : nullptr;
}

void problem_list::add(std::string sentence) const {
  const std::size_t count = of_.problems.size();
  if (count + 1 < table_problems_max)
    of_.problems.push_back(std::move(sentence));
  else if (count + 1 == table_problems_max)
    of_.problems.emplace_back("there is more, which is not listed");
}

void settle_place(partition& p, const disk_sample& disk, const problem_list& problems) {
  p.place = p.declared.intersection({0, disk.disk_length()});
  if (p.place == p.declared)
    return;
  if (p.place.is_empty()) {
    p.place = {};
    problems.add(fmt::format("partition {} begins at {:#x}, behind the end of the disk ({:#x}): it "
                             "is not shown; the disk may have been cut off",
                             p.number, p.declared.offset, disk.disk_length()));
  } else {
    problems.add(fmt::format("partition {} ends at {:#x}, behind the end of the disk ({:#x}): what "
                             "is there of it is shown; the disk may have been cut off",
                             p.number, p.declared.end(), disk.disk_length()));
  }
}

sampled<partition_table> scan_partition_table(const disk_sample& disk) {
  partition_table table;
  if (disk.disk_length() < 512)
    return table;
  BGFS_TRY(const auto head, disk.bytes({0, std::min(disk.disk_length(), head_length)}));
  if (head.empty()) {
    problem_list(table).add("the first blocks of the disk cannot be read, where a table would be");
    return table;
  }
  if (!has_mbr(head.first(512)))
    return table;
  BGFS_TRY([[maybe_unused]] const bool is_done, scan_behind_mbr(disk, head, table));
  report_overlaps(table);
  return table;
}

} // namespace bgfs
