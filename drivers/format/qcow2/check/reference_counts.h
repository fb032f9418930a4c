// SPDX-License-Identifier: MIT
// How often each host cluster is referred to, as a check finds out. Exact, and in bounded memory:
//
//   - counts lie in pieces of 16384 clusters, made when one of their clusters is counted and 2 bits
//     wide until a count does not fit, then 8, 32, 64. A file of 16 TiB in clusters of 64 KiB takes
//     64 MiB, where a number of 16 bits for each would take 512;
//   - when even that is more than allowed, the last pieces are given up and the window ends before
//     them: the check goes through the tables again for the rest. So only images with many
//     snapshots or extreme sizes cost more than one pass, and none costs more memory.
#pragma once

#include "graph/base/ints.h"

#include <map>
#include <optional>
#include <vector>

namespace bgfs::qcow2 {

class reference_counts {
public:
  // `count_max`: what the image's refcounts can say.
  reference_counts(u64 bytes_max, u64 count_max) : bytes_max_(bytes_max), count_max_(count_max) {}

  // Forgets everything; clusters from `first` on are counted.
  void begin(u64 first);
  // Returns by how much the count would be larger than count_max; it stays there. What is outside
  // of the window is not counted.
  u64 add(u64 cluster, u64 by);
  [[nodiscard]] u64 operator[](u64 cluster) const;
  // The first cluster from `from` on that was counted; nullopt: none.
  [[nodiscard]] std::optional<u64> next(u64 from) const;

  // Counts are complete in [first, end). The end comes nearer while counting.
  [[nodiscard]] u64 first() const { return first_; }
  [[nodiscard]] u64 end() const { return end_; }
  [[nodiscard]] bool has(u64 cluster) const { return cluster >= first_ && cluster < end_; }
  [[nodiscard]] bool is_everything() const { return first_ == 0 && end_ == no_end; }
  [[nodiscard]] bool is_last() const { return end_ == no_end; }
  [[nodiscard]] u64 bytes() const { return bytes_; }

  static constexpr u64 piece_length = 16384;

private:
  static constexpr u64 no_end = ~u64{0};
  struct piece {
    unsigned order = 1; // log2 of the bits of a count
    std::vector<std::byte> bytes;
  };
  [[nodiscard]] const piece* find(u64 number) const;
  piece& find_or_make(u64 number);
  void widen(piece& p, u64 count);
  void keep_within_limit();

  u64 bytes_max_;
  u64 count_max_;
  u64 first_ = 0;
  u64 end_ = no_end;
  u64 bytes_ = 0;
  std::map<u64, piece> pieces_;
  // What find said last: neighbours are asked for one after another.
  mutable std::optional<u64> found_number_;
  mutable const piece* found_ = nullptr;
};

} // namespace bgfs::qcow2
