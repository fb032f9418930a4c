// SPDX-License-Identifier: MIT
// Rebasing (reference section 5.1): an overlay gets another backing file and reads the same.
#pragma once

#include "graph/model/graph.h"

#include <functional>

namespace bgfs {

struct rebase_request {
  root* overlay = nullptr;                  // over the image; may write
  root* backing = nullptr;                  // over what will be below it; null: nothing will
  std::optional<image_reference> reference; // how its header will name that
  bool is_compressed = false;               // whole clusters are written compressed
  unsigned parallel = 8;
  // Called now and then with bytes done and bytes in all. May not suspend.
  std::function<void(u64 done, u64 total)> progress;
};

// What the overlay takes from its backing node and would read otherwise from the new one is written
// into the overlay, cluster by cluster; when all of it is durable the header names the new backing
// file, durably, too. At every instant, whatever fails, the overlay reads as before, over the
// backing file that its header names. The open node goes on with the one that it has.
//
// What both chains take from one image is not read, nor what is known to be zero.
task<void> rebase_overlay(loop& home, rebase_request request);

// Only the name, which the caller answers for. error_kind::unsupported where the format cannot.
task<void> name_backing(node& overlay, std::optional<image_reference> reference);

} // namespace bgfs
