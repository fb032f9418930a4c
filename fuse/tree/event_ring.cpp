// SPDX-License-Identifier: MIT
#include "fuse/tree/event_ring.h"

#include <fmt/format.h>

#include <ctime>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace bgfs {
namespace {

std::string event_line(std::string_view type, value data) {
  std::timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  value timestamp;
  timestamp.set("seconds", static_cast<i64>(now.tv_sec));
  timestamp.set("microseconds", static_cast<i64>(now.tv_nsec / 1000));
  value line;
  line.set("timestamp", std::move(timestamp));
  line.set("event", type);
  line.set("data", data.is_null() ? value(value::map{}) : std::move(data));
  return to_json(line);
}

std::string describe_loss(u64 count) {
  value data;
  data.set("count", count);
  return event_line(event_name::events_lost, std::move(data));
}

// What is written through the descriptor that memfd_create returns tells no inotify watch (since
// Linux 6.14), what is written through one that was opened does.
descriptor make_wake_file() {
  const descriptor made(memfd_create("bgfs-events", MFD_CLOEXEC));
  const std::string path = fmt::format("/proc/self/fd/{}", made.get());
  return descriptor(made.is_open() ? open(path.c_str(), O_RDWR | O_CLOEXEC) : -1);
}

} // namespace

event_ring::event_ring() : lines_(kept_max, describe_loss), wake_(make_wake_file()) {}

void event_ring::emit(std::string_view type, value data) {
  lines_.add(event_line(type, std::move(data)));
  if (wake_.is_open())
    (void)!pwrite(wake_.get(), "\n", 1, 0);
}

} // namespace bgfs
