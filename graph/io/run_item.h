// SPDX-License-Identifier: MIT
// Something a loop can run, embedded in whatever waits: posting it allocates nothing.
#pragma once

namespace bgfs {

struct run_item {
  void (*run)(run_item& self) = nullptr;
  run_item* next = nullptr; // used by the queue that holds it

  run_item() = default;
  explicit run_item(void (*f)(run_item&)) : run(f) {}
  run_item(const run_item&) = delete;
  run_item& operator=(const run_item&) = delete;
};

} // namespace bgfs
