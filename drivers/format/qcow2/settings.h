// SPDX-License-Identifier: MIT
// The options of an open qcow2 node and what they amount to for a given image (reference 3.5).
#pragma once

#include "drivers/format/qcow2/cluster_allocator.h"
#include "graph/base/option_schema.h"

namespace bgfs::qcow2 {

extern const option_schema open_schema;

// Bytes a cache may hold and how large its pages are.
struct cache_settings {
  page_plan l2;
  page_plan refcounts;
  u64 clean_interval_ms = 0; // 0: never
};

struct settings {
  bool has_lazy_refcounts = false;
  discard_policy discards;
  bool keeps_reference = false; // discard-no-unref
  metadata_kinds overlap_checks = metadata_kind::cached;
  cache_settings caches;
};

// `discards_unmap`: the node's own `discard` option. Fails, with the option's place, for
// combinations that contradict each other or the image.
[[nodiscard]] result<settings> read_settings(const options& given, const header& h,
                                             bool discards_unmap);

} // namespace bgfs::qcow2
