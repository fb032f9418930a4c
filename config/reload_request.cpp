// SPDX-License-Identifier: MIT
#include "config/reload_request.h"

#include "config/event_waiter.h"
#include "config/yaml.h"

#include <cerrno>
#include <charconv>
#include <csignal>
#include <fcntl.h>
#include <unistd.h>

namespace bgfs {
namespace {

// What is new in an open events file; an error when the mount has ended.
result<std::string> read_new(int events) {
  std::string text;
  std::string block(64 << 10, '\0');
  for (;;) {
    const ssize_t count = ::read(events, block.data(), block.size());
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return fail_errno(errno, "the mount has ended while it was reloaded");
    if (count == 0)
      return text;
    text.append(block, 0, static_cast<std::size_t>(count));
  }
}

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
  const std::string path = mount.path(".bgfs/events");
  const owned_fd events(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!events.is_open())
    return fail_errno(errno, "cannot open '{}'", path);
  BGFS_CHECK(read_new(events.get())); // what was before
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
    BGFS_TRY(const std::string lines, read_new(events.get()));
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
