// SPDX-License-Identifier: MIT
#include "config/reload_request.h"

#include "config/event_reader.h"
#include "config/event_waiter.h"
#include "config/yaml.h"

#include <cerrno>
#include <charconv>
#include <csignal>

namespace bgfs {
namespace {

// The outcome of a reload, if these events tell one.
std::optional<result<>> outcome_in(std::string_view lines) {
  while (!lines.empty()) {
    const std::size_t end = std::min(lines.find('\n'), lines.size() - 1);
    const result<value> event = parse_json(lines.substr(0, end));
    lines.remove_prefix(end + 1);
    const value* const name = event ? event->find("event") : nullptr;
    if (name == nullptr || name->as_text() == nullptr)
      continue;
    if (*name->as_text() == "RELOAD_APPLIED")
      return result<>();
    const value* const data = event->find("data");
    const value* const reason = data != nullptr ? data->find("reason") : nullptr;
    if (*name->as_text() == "RELOAD_REFUSED" && reason != nullptr && reason->as_text() != nullptr)
      return result<>(
          fail(error_kind::invalid_argument, "{}; nothing was changed", *reason->as_text()));
  }
  return std::nullopt;
}

result<> reload_by_signal(const mount_client& mount) {
  event_waiter waiter(mount);
  BGFS_TRY(event_reader events, event_reader::of(mount));
  BGFS_CHECK(events.read_new()); // what was before
  BGFS_TRY(const std::string pid_text, mount.read(".bgfs/pid"));
  int pid = 0;
  (void)std::from_chars(pid_text.data(), pid_text.data() + pid_text.size(), pid);
  // A number of another namespace may be somebody else's here.
  if (!waiter.is_exact() || ::kill(pid, SIGHUP) != 0)
    return fail(
        error_kind::permission,
        "'{}' is mounted read-only, so that nothing can be written to .bgfs/reload, and its "
        "process cannot be signalled from here; send it SIGHUP, or remount with -o rw",
        mount.directory());
  for (;;) {
    BGFS_TRY(const std::string lines,
             context(events.read_new(), "reloading '{}'", mount.directory()));
    if (std::optional<result<>> outcome = outcome_in(lines))
      return *std::move(outcome);
    waiter.wait(std::nullopt);
  }
}

} // namespace

result<> request_reload(const mount_client& mount, const std::string& words) {
  result<> done = mount.command(".bgfs/reload", words);
  if (done || done.error().os_error() != EROFS)
    return done;
  if (words == "1")
    return reload_by_signal(mount);
  return fail(error{error_kind::permission,
                    fmt::format("'{}' is mounted read-only, so that nothing can be written to "
                                ".bgfs/reload; remount it with -o rw first, or reload it with no "
                                "more than 'bgfs reload'",
                                mount.directory()),
                    EROFS});
}

} // namespace bgfs
