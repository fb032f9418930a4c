// SPDX-License-Identifier: MIT
// What the last check of a root's image has found, for `last-check`.
#pragma once

#include "graph/model/check.h"

#include <ctime>
#include <string>
#include <vector>

namespace bgfs {

struct kept_check {
  static constexpr std::size_t findings_max = 100;

  check_result found;
  std::string filename;
  std::string format;
  std::timespec ended{};
  std::vector<std::string> findings; // the first ones
  u64 findings_more = 0;             // that are not kept
};

} // namespace bgfs
