// SPDX-License-Identifier: MIT
// How closing went, told to whoever unmounts. By then the mount is gone and the serving process is
// no child of theirs; so it leaves the outcome in a file in memory, which `bgfs umount` has opened
// before through /proc/PID/fd (the number is in .bgfs/outcome-fd).
#pragma once

#include "graph/io/file.h"

#include <string>

namespace bgfs {

struct closing_outcome {
  int status = 0;       // exit status
  std::string messages; // one a line
};

[[nodiscard]] descriptor make_outcome_file();
void write_outcome(int fd, const closing_outcome& outcome);
// error_kind::io when nothing was written: the process ended without closing its images.
[[nodiscard]] result<closing_outcome> read_outcome(int fd);

} // namespace bgfs
