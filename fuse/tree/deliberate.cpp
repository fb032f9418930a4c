// SPDX-License-Identifier: MIT
#include "fuse/tree/deliberate.h"

#include "fuse/tree/mount_state.h"
#include "fuse/tree/process.h"
#include "graph/io/sleep.h"

#include <cerrno>

namespace bgfs {

result<> require_no_lister(mount_state& mount, u32 pid, const std::string& directory,
                           const std::string& what) {
  const process_identity who = process_of(pid);
  const std::string command = command_of(pid);
  if (mount.listers.has_listed(who, directory))
    return fail(
        error{error_kind::busy,
              fmt::format(
                  "{} is not deleted for process {} ({}), which has looked into its directory, as "
                  "recursive deletes do; to delete it, let rmdir(1), or any process that has not "
                  "looked, remove the directory",
                  what, who.pid, command.empty() ? "?" : command),
              ENOTEMPTY});
  if (mount.listers.is_overflowing())
    return fail(error{error_kind::busy,
                      fmt::format("{} is not deleted while more than {} processes live that have "
                                  "looked into such directories, for this may be one of them; try "
                                  "again when some have ended",
                                  what, lister_ledger::processes_max),
                      ENOTEMPTY});
  return {};
}

task<void> require_soon(std::function<result<>()> is_unused) {
  constexpr int tries = 50;
  for (int i = 0; i < tries; i++) {
    if (is_unused())
      co_return;
    co_await sleep_for(std::chrono::milliseconds(5));
  }
  co_await is_unused();
}

} // namespace bgfs
