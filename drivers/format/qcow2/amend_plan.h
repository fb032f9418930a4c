// SPDX-License-Identifier: MIT
// What may be changed of an image after it was made (reference sections 3.7 and 3.16), and what a
// list of such options amounts to for a given image.
#pragma once

#include "drivers/format/qcow2/header.h"
#include "drivers/format/qcow2/snapshot_table.h"
#include "graph/base/option_schema.h"

namespace bgfs::qcow2 {

extern const option_schema amend_schema;

// What differs from the image; nullopt: stays as it is.
struct amend_plan {
  unsigned version = 3;                   // in the end
  std::optional<bool> has_lazy_refcounts; // never on with version 2
  std::optional<unsigned> refcount_order;
  std::optional<u64> length;
  std::optional<std::string> data_file; // empty: the header is not to name it
  bool clears_raw = false;              // the data file need not be a raw image any more
  bool changes_keys = false;

  // Whether the header changes before everything else does.
  [[nodiscard]] bool changes_header(const header& h) const {
    return version > h.version || has_lazy_refcounts || data_file || clears_raw;
  }
  [[nodiscard]] bool is_empty(const header& h) const {
    return version == h.version && !changes_header(h) && !refcount_order && !length &&
           !changes_keys;
  }
};

// Everything that can be known to be impossible is refused here, before anything is written.
[[nodiscard]] result<amend_plan> plan_amendment(const options& given, const header& h,
                                                std::size_t snapshots);

} // namespace bgfs::qcow2
