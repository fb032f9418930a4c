// SPDX-License-Identifier: MIT
// The last errors of one directory of the mount, for its `last-error` file.
#pragma once

#include "graph/base/error.h"

#include <ctime>
#include <deque>
#include <string>

namespace bgfs {

class error_log {
public:
  static constexpr std::size_t kept_max = 16;

  // `verb` is what the process asked for: "write", "ctl retry", "open". pid 0: nobody asked.
  void add(u32 pid, std::string_view verb, const error& e);
  // Lines `time pid verb errno sentence`, oldest first. The same error again is counted in its
  // line.
  [[nodiscard]] std::string text() const;

private:
  struct entry {
    std::timespec time;
    u32 pid;
    std::string verb;
    int os_error;
    std::string sentence;
    u64 count;
  };
  std::deque<entry> entries_;
};

// "2026-11-22T20:15:04Z".
[[nodiscard]] std::string format_time(const std::timespec& time);

} // namespace bgfs
