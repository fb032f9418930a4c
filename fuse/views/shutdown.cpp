// SPDX-License-Identifier: MIT
// .bgfs/shutdown: ends the mount, for who has its files but not the right to unmount it.
#include "fuse/views/common.h"

#include <cerrno>
#include <csignal>
#include <unistd.h>

namespace bgfs {
namespace {

task<std::string> render_shutdown(view_subject) {
  co_return "1  unmounts and ends, if nobody has a disk of it open\n"
            "force  does so all the same, as SIGTERM: who has a disk open is told ENOTCONN\n";
}

std::unexpected<error> in_use(const exported_root& root, const opener& by) {
  return fail(error_kind::busy,
              "the mount cannot end while process {} ({}) has {} open; close it there, or write "
              "force",
              by.pid, by.command, by.what.empty() ? root.name() : by.what);
}

result<> check_unused(const mount_state& mount) {
  for (const root_pointer& r : mount.roots) {
    if (!r->openers.empty())
      return in_use(*r, r->openers.front());
    for (const auto& [number, shown] : r->open_views)
      if (!shown.users.empty())
        return in_use(*r, shown.users.front());
    if (const opener* const by = r->beside().user_of(""))
      return in_use(*r, *by);
  }
  return {};
}

task<void> write_shutdown(view_subject subject, std::string text) {
  if (text != "1" && text != "force")
    co_await fail(error_kind::invalid_argument, "write 1 or force to shutdown, not '{}'", text);
  if (text == "1")
    co_await check_unused(subject.mount);
  // The way that everything else takes that ends a mount (fuse/mount/life.h); the answer to this
  // write is on its way before.
  if (::kill(::getpid(), SIGTERM) != 0)
    co_await fail_errno(errno, "cannot end the mount");
}

} // namespace

extern constinit const view shutdown_view{
    .name = "shutdown",
    .summary = "write 1 (or force) to unmount and end",
    .render = render_shutdown,
    .write = write_shutdown,
};

} // namespace bgfs
