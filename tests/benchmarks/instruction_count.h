// SPDX-License-Identifier: MIT
// The processor's count of this thread's instructions outside the kernel, where the machine lets us
// have it: many virtual machines and containers do not.
#pragma once

#include "graph/base/ints.h"
#include "graph/io/file.h"

#include <optional>
#include <string>

namespace bgfs::benchmarks {

class instruction_counter {
public:
  instruction_counter();
  // Why there is none; empty if it counts.
  [[nodiscard]] const std::string& failure() const { return failure_; }
  // Since it was made; nothing if it does not count.
  [[nodiscard]] std::optional<u64> count() const;

private:
  descriptor fd_;
  std::string failure_;
};

} // namespace bgfs::benchmarks
