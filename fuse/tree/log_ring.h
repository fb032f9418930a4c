// SPDX-License-Identifier: MIT
// Where the trace points of a mount write: the last lines are kept for .bgfs/log, and a mount in
// the foreground also writes them to standard error.
#pragma once

#include "fuse/tree/line_ring.h"
#include "graph/base/trace.h"

namespace bgfs {

class log_ring final : public trace_sink {
public:
  static constexpr std::size_t kept_max = 1024;
  log_ring();

  void write(std::string_view line) override;
  void copy_to_standard_error() { is_copied_ = true; }
  [[nodiscard]] line_ring& lines() { return lines_; }

private:
  line_ring lines_;
  std::atomic<bool> is_copied_ = false;
};

// "info": every category; "debug model", "trace fuse file": those that are named. The error says
// what there is, and nothing was changed.
[[nodiscard]] result<> set_levels(trace_log& log, std::string_view command);
// "CATEGORY: LEVEL" a line.
[[nodiscard]] std::string describe_levels(const trace_log& log);

} // namespace bgfs
