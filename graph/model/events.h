// SPDX-License-Identifier: MIT
// What happens in a graph and somebody may be waiting for: thresholds, errors, corruption. Types
// and keys are those that tools of this field know (BLOCK_WRITE_THRESHOLD, BLOCK_IO_ERROR).
#pragma once

#include "graph/base/value.h"

namespace bgfs {

struct event_sink {
  virtual ~event_sink() = default;
  // `data` is a map; when it happened is added by the sink. Does not suspend.
  virtual void emit(std::string_view type, value data) = 0;
};

} // namespace bgfs
