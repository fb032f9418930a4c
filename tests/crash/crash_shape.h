// SPDX-License-Identifier: MIT
// What kind of image a seed of the crash run works on.
#pragma once

#include "tests/unit/drivers/qcow2/qcow2_bench.h"

#include <random>

namespace bgfs::test {

struct crash_shape {
  option_list create;
  option_list open;
  u64 cluster = 65536;
  u64 length = 0;
  u64 backing = 0; // its length; 0: none
  unsigned refcount_bits = 16;
  bool is_v2 = false;
  bool is_extended = false;
  bool has_data_file = false;
  bool is_raw_data = false;
  std::string encryption; // its format; "": none

  // Of requests: encrypted images take whole sectors.
  [[nodiscard]] u64 unit() const { return encryption.empty() ? 1 : 512; }
  // References a cluster can have besides the disk's.
  [[nodiscard]] u64 snapshots_max() const;
  // Version 2 has nothing to hide a backing file with.
  [[nodiscard]] bool can_discard() const { return !is_v2 || backing == 0; }
  [[nodiscard]] std::string text() const;
};

[[nodiscard]] crash_shape draw_shape(std::mt19937_64& random);

} // namespace bgfs::test
