// SPDX-License-Identifier: MIT
// Reads the input as a disk: the first half of it is its beginning, the second half its end, with
// as much between as the first byte says. What is found is bounded and lies on the disk.
#include "graph/base/partitions/partition_table.h"
#include "graph/base/assert.h"
#include "graph/base/partitions/file_system.h"
#include "graph/base/partitions/type_name.h"

#include <algorithm>

using namespace bgfs;

namespace {

struct folded_disk {
  std::span<const std::byte> bytes;
  u64 gap;

  u64 length() const { return bytes.size() + gap; }
  std::vector<std::byte> read(byte_range r) const {
    std::vector<std::byte> out(r.length);
    const u64 half = bytes.size() / 2;
    for (u64 i = 0; i < r.length; i++) {
      const u64 at = r.offset + i;
      if (at < half)
        out[i] = bytes[at];
      else if (at >= half + gap)
        out[i] = bytes[at - gap];
    }
    return out;
  }
};

template<class Scan>
auto run(const folded_disk& disk, disk_sample& sample, Scan scan) {
  for (unsigned reads = 0;; reads++) {
    BGFS_ASSERT(reads < 2000, "a scan asks for a bounded number of ranges");
    auto found = scan(sample);
    if (found)
      return *std::move(found);
    BGFS_ASSERT(found.error().length <= gpt_entries_length_max, "reads are bounded");
    sample.add(found.error(), disk.read(found.error()));
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  if (size == 0)
    return 0;
  const folded_disk disk{std::as_bytes(std::span(data + 1, size - 1)),
                         (data[0] & 3) == 3 ? u64{1} << 40 : u64{data[0]} << 9};
  disk_sample sample(disk.length());
  const partition_table t = run(disk, sample, scan_partition_table);
  BGFS_ASSERT(t.problems.size() <= table_problems_max, "problems are bounded");
  u32 last = 0;
  for (const partition& p : t.partitions) {
    BGFS_ASSERT(p.number > last, "numbers grow");
    last = p.number;
    BGFS_ASSERT(byte_range(0, disk.length()).contains(p.place), "partitions lie on the disk");
    BGFS_ASSERT(p.label.find('\0') == std::string::npos, "labels have no NUL");
    (void)partition_type_name(p.type);
  }
  for (std::size_t i = 0; i < std::min<std::size_t>(t.partitions.size(), 4); i++)
    if (t.partitions[i].has_bytes())
      (void)run(disk, sample,
                [&](const disk_sample& s) { return find_file_system(s, t.partitions[i].place); });
  return 0;
}
