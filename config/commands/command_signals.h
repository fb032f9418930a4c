// SPDX-License-Identifier: MIT
// Signals while a command works: those that end it cancel what runs, so that it can put things in
// order, and SIGUSR1 asks how far it is.
#pragma once

#include "graph/io/cancel.h"
#include "graph/io/task.h"

#include <csignal>

namespace bgfs {

class command_signals {
public:
  // Made before any thread is started, which inherits what is held back here. Signals that the
  // caller of the program has ignored (nohup) stay so.
  explicit command_signals(bool is_watching);
  ~command_signals();
  command_signals(const command_signals&) = delete;
  command_signals& operator=(const command_signals&) = delete;

  // Runs the task to its end. A first signal cancels it; at the second the process ends.
  [[nodiscard]] result<> run(loop& home, task<void> work);
  // Somebody asked for the progress since the last call.
  [[nodiscard]] bool take_progress_request() { return std::exchange(is_progress_wanted_, false); }
  // The process ends by the signal that came, if one did: for work that it has kept from its end.
  // What has succeeded, just before or since, is not said to be interrupted: signals stay held back
  // until the process ends.
  void end_as_asked() const;

private:
  task<void> watch(cancel_state& work);
  int fd_ = -1; // a signalfd; -1: nothing is watched
  int caught_ = 0;
  bool is_progress_wanted_ = false;
};

} // namespace bgfs
