// SPDX-License-Identifier: MIT
#include "tests/benchmarks/instruction_count.h"

#include <cerrno>
#include <cstring>
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bgfs::benchmarks {

instruction_counter::instruction_counter() {
  perf_event_attr what{};
  what.type = PERF_TYPE_HARDWARE;
  what.size = sizeof what;
  what.config = PERF_COUNT_HW_INSTRUCTIONS;
  what.exclude_kernel = 1;
  what.exclude_hv = 1;
  constexpr int this_thread = 0;
  constexpr int any_cpu = -1;
  constexpr int no_group = -1;
  const long fd =
      syscall(SYS_perf_event_open, &what, this_thread, any_cpu, no_group, PERF_FLAG_FD_CLOEXEC);
  if (fd < 0) {
    failure_ = std::string("perf_event_open: ") + std::strerror(errno);
    return;
  }
  fd_ = descriptor(static_cast<int>(fd));
}

std::optional<u64> instruction_counter::count() const {
  u64 value = 0;
  if (fd_.get() < 0 || read(fd_.get(), &value, sizeof value) != sizeof value)
    return std::nullopt;
  return value;
}

} // namespace bgfs::benchmarks
