// SPDX-License-Identifier: MIT
#include "fuse/tree/event_ring.h"

#include <ctime>
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

} // namespace

event_ring::event_ring()
    : lines_(kept_max, describe_loss), wake_(memfd_create("bgfs-events", MFD_CLOEXEC)) {}

void event_ring::emit(std::string_view type, value data) {
  lines_.add(event_line(type, std::move(data)));
  if (wake_.is_open())
    (void)!pwrite(wake_.get(), "\n", 1, 0);
}

} // namespace bgfs
