// SPDX-License-Identifier: MIT
// What `-o` may say when a graph is mounted.
#pragma once

#include "fuse/protocol/negotiate.h"
#include "fuse/tree/payload_budget.h"
#include "graph/base/result.h"
#include "graph/model/lease.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace bgfs {

struct mount_options {
  static constexpr unsigned queues_max = lease::queues_max;
  std::vector<std::string> for_kernel; // of libfuse and mount(2), as they were written
  bool is_read_only = false;
  bool is_strict = false;
  bool allows_others = false; // allow_other was written
  transport_choice transport = transport_choice::automatic;
  std::optional<unsigned> queues; // threads that take requests; nullopt: as many as are good
  std::string only_export;        // export=NAME
  bool is_writeback = false;      // only with that
  u64 payload_budget = payload_budget::total_default;
};

// Options that belong to mount(8) and its relatives are dropped; one that nobody knows is an error.
[[nodiscard]] result<mount_options> parse_mount_options(std::span<const std::string> given);

} // namespace bgfs
