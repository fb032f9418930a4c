// SPDX-License-Identifier: MIT
#include "fuse/tree/mount_state.h"

#include <climits>
#include <cstdlib>
#include <unistd.h>

namespace bgfs {
namespace {

std::timespec now() {
  std::timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  return time;
}

// The path without symbolic links; of what does not exist yet, that of its directory.
std::string resolved(std::string path) {
  std::string tail;
  while (!path.empty()) {
    char* const real = realpath(path.c_str(), nullptr);
    if (real != nullptr) {
      std::string found = real;
      std::free(real);
      return found == "/" && !tail.empty() ? tail : found + tail;
    }
    const std::size_t slash = path.find_last_of('/');
    if (slash == std::string::npos)
      break;
    tail.insert(0, path.substr(slash));
    path.resize(slash);
  }
  return path + tail;
}

} // namespace

mount_state::mount_state(loop& on, mount_request r, std::string absolute_directory,
                         const registry& drivers)
    : home(on), request(std::move(r)), directory(std::move(absolute_directory)), tracing(log_lines),
      nodes(on, drivers, nullptr), owner(geteuid()), group(getegid()), started(now()) {
  tracing.set_level(trace_level::warn);
  home.set_log(tracing);
  nodes.set_events(&events);
  for (const export_spec& spec : request.config.exports())
    roots.push_back(std::make_shared<exported_root>(*this, spec));
}

mount_state::~mount_state() {
  home.set_log(silent_log);
}

exported_root* mount_state::find_root(std::string_view name) const {
  for (const auto& r : roots)
    if (r->name() == name)
      return r.get();
  return nullptr;
}

void mount_state::set_line_notifier(notifier* to) {
  events.lines().set_notifier(to);
  log_lines.lines().set_notifier(to);
}

result<> mount_state::require_outside(std::string_view path) const {
  const std::string real = resolved(std::string(path));
  const std::string inside = directory == "/" ? directory : directory + "/";
  if (real == directory || real.starts_with(inside))
    return fail(error_kind::invalid_argument,
                "'{}' lies in '{}', where the mount would hide it and wait for itself; keep graphs "
                "and images outside of the directory they are mounted on",
                path, directory);
  return {};
}

} // namespace bgfs
