// SPDX-License-Identifier: MIT
#include "config/commands/progress.h"

#include <cstdio>
#include <fmt/core.h>

namespace bgfs {

namespace {

constexpr double step_percent = 1; // fewer lines than this would look stuck, more would cost time

} // namespace

void progress_line::report(u64 done, u64 total) {
  const double percent =
      total == 0 ? 100 : 100 * static_cast<double>(done) / static_cast<double>(total);
  if (signals_.take_progress_request() && !is_shown_)
    fmt::print(stderr, "    ({:.2f}/100%)\n", percent);
  if (!is_shown_)
    return;
  const bool is_last = done == total && last_percent_ < 100;
  if (is_begun_ && percent < last_percent_ + step_percent && !is_last)
    return;
  is_begun_ = true;
  last_percent_ = percent;
  fmt::print("    ({:.2f}/100%)\r", percent);
  (void)std::fflush(stdout);
}

void progress_line::end() {
  if (is_begun_)
    fmt::print("\n");
  is_begun_ = false;
}

} // namespace bgfs
