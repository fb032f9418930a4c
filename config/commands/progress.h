// SPDX-License-Identifier: MIT
// How far a long command has come, for people: "    (12.34/100%)", overwritten in place. What is
// not shown is told once, on standard error, to who sends SIGUSR1.
#pragma once

#include "config/commands/command_signals.h"

namespace bgfs {

class progress_line {
public:
  progress_line(bool is_shown, command_signals& signals) : is_shown_(is_shown), signals_(signals) {}
  // Prints when enough has changed since the last time.
  void report(u64 done, u64 total);
  // Ends the line, if there is one.
  void end();

private:
  bool is_shown_;
  command_signals& signals_;
  bool is_begun_ = false;
  double last_percent_ = -1;
};

} // namespace bgfs
