// SPDX-License-Identifier: MIT
// How far a long command has come, for people: "    (12.34/100%)", overwritten in place.
#pragma once

#include "graph/base/ints.h"

namespace bgfs {

class progress_line {
public:
  explicit progress_line(bool is_shown) : is_shown_(is_shown) {}
  // Prints when enough has changed since the last time.
  void report(u64 done, u64 total);
  // Ends the line, if there is one.
  void end();

private:
  bool is_shown_;
  bool is_begun_ = false;
  double last_percent_ = -1;
};

} // namespace bgfs
