// SPDX-License-Identifier: MIT
// What looking through a whole image for contradictions says (reference section 3.12).
#pragma once

#include "graph/base/ints.h"

#include <string_view>

namespace bgfs {

// `repair_leaks` only gives back clusters that nobody uses; `repair_all` also changes what is wrong
// with clusters in use.
enum class check_mode : u8 { report, repair_leaks, repair_all };

// The first three say how the image is left: what was repaired is counted below, not there.
struct check_result {
  u64 corruptions = 0;  // what loses or mixes data, now or with the next write
  u64 leaks = 0;        // clusters that are counted more often than they are used
  u64 check_errors = 0; // what could not be looked at, so that nothing is known of it
  u64 corruptions_fixed = 0;
  u64 leaks_fixed = 0;

  u64 total_clusters = 0; // of the disk
  u64 allocated_clusters = 0;
  u64 fragmented_clusters = 0; // not behind the one before it
  u64 compressed_clusters = 0;
  u64 image_end_offset = 0; // in bytes: behind it, nothing is used

  [[nodiscard]] bool is_sound() const { return corruptions == 0 && check_errors == 0; }
  friend bool operator==(const check_result&, const check_result&) = default;
};

// Who is told while a check goes on. How many messages there are is up to the image, which may be
// hostile: whoever keeps them sets a limit.
struct check_sink {
  virtual ~check_sink() = default;
  // One finding, in one line without its end.
  virtual void message(std::string_view line) = 0;
  // Of a measure that only the driver knows; `done` never goes down within one check.
  virtual void progress(u64 done, u64 total) = 0;
};

} // namespace bgfs
