// SPDX-License-Identifier: MIT
// What a part of an L2 table refers to. Pure.
#pragma once

#include "drivers/format/qcow2/l2_entry.h"
#include "graph/base/result.h"

#include <vector>

namespace bgfs::qcow2 {

struct host_reference {
  enum class kind : u8 { l2_table, data, compressed };
  kind what = kind::data;
  cluster_run clusters; // one reference to each

  friend bool operator==(const host_reference&, const host_reference&) = default;
};

// In the order of the entries; data clusters that follow one another are one run. A compressed
// cluster refers to each host cluster it touches. error_kind::corrupt_image for an entry that
// contradicts the specification.
[[nodiscard]] result<std::vector<host_reference>> references_of(const entry_rules& rules,
                                                                std::span<const std::byte> slice);

// Takes the COPIED flag from every entry; whether there was one.
bool clear_copied(const geometry& g, std::span<std::byte> slice);

} // namespace bgfs::qcow2
