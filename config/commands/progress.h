// SPDX-License-Identifier: MIT
// How far a long command has come. For people: "    (12.34/100%)", overwritten in place; on
// standard output where it is asked for, as scripts know it, and on a terminal by itself when the
// work takes longer than a moment. For programs: a line of JSON each time, on standard error. Who
// sends SIGUSR1 is told once, on standard error.
#pragma once

#include "config/arguments.h"
#include "config/commands/command_signals.h"

#include <chrono>

namespace bgfs {

enum class progress_form : u8 { when_long, none, bar, json };

// -p, --progress[=bar|json].
void add_progress_option(arguments& known, progress_form& into);

class progress_line {
public:
  // `job` and `unit` are for the JSON: "convert", "bytes". A command that is quiet shows none.
  progress_line(progress_form form, std::string_view job, std::string_view unit,
                command_signals& signals);
  ~progress_line() { end(); }
  progress_line(const progress_line&) = delete;
  progress_line& operator=(const progress_line&) = delete;

  // Prints when enough has changed since the last time.
  void report(u64 done, u64 total);
  // Ends the line, if there is one; what was shown unasked is gone again.
  void end();

private:
  using clock = std::chrono::steady_clock;
  [[nodiscard]] bool is_time(double percent, bool is_last) const;
  void print_bar(double percent);
  void print_json(u64 done, u64 total) const;

  progress_form form_;
  std::string_view job_;
  std::string_view unit_;
  command_signals& signals_;
  clock::time_point begun_ = clock::now();
  clock::time_point shown_;
  bool is_begun_ = false;
  double last_percent_ = -1;
};

} // namespace bgfs
