// SPDX-License-Identifier: MIT
// What the sources of partition_table.h share.
#pragma once

#include "graph/base/partitions/partition_table.h"
#include "graph/base/result.h"

namespace bgfs {

// Sentences, of which only the first ones are kept.
class problem_list {
public:
  explicit problem_list(partition_table& of) : of_(of) {}
  void add(std::string sentence) const;

private:
  partition_table& of_;
};

// How disks are cut into sectors; the first is by far the most frequent.
inline constexpr u64 sector_lengths[] = {512, 4096, 2048, 1024};

// Finds a GPT behind a protective MBR. False: neither of the two is valid; why, is among the
// problems.
[[nodiscard]] sampled<bool> scan_gpt(const disk_sample& disk, partition_table& into);
// Whether a GPT header begins there, valid or not: `head` is the beginning of the disk.
[[nodiscard]] bool has_gpt_signature(std::span<const std::byte> head, u64 sector_length);

// Reads the partitions of an MBR, which `head` begins with.
[[nodiscard]] sampled<bool> scan_mbr(const disk_sample& disk, std::span<const std::byte> head,
                                     partition_table& into);
// A boot sector whose table says something: it has the signature, no file system's boot sector
// lies there, and its four entries are possible.
[[nodiscard]] bool has_mbr(std::span<const std::byte> sector);
// One of its entries is that of a protective MBR.
[[nodiscard]] bool is_protective(std::span<const std::byte> sector);
// How many of its entries are partitions beside the protective one.
[[nodiscard]] unsigned count_hybrid(std::span<const std::byte> sector);

// Sets `place`, and says what of it is outside the disk or impossible.
void settle_place(partition& p, const disk_sample& disk, const problem_list& problems);

} // namespace bgfs
