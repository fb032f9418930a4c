// SPDX-License-Identifier: MIT
// bgfs flush, retry and backing: what `ctl` of a root takes, as commands. Exit statuses are those
// of bgfs reload: 1 for a wrong call and what is no root of a mount, 32 for what the mount refuses.
#include "config/commands/commands.h"
#include "config/mounted_root.h"

namespace bgfs {
namespace {

// `count` operands, of which the first is the raw file of a root and the others follow the verb,
// which is the name of the command.
int run_verb(const command_call& call, std::string usage, std::string about, std::size_t count) {
  arguments known(call.name, std::move(usage), std::move(about));
  const parsed_arguments parsed = parse_arguments(call, known, mount_status::usage);
  if (parsed.is_over)
    return parsed.status;
  if (parsed.operands.size() != count) {
    complain(call, fmt::format("{} expected; see 'bgfs {} --help'",
                               count == 1 ? "the raw file of a root is"
                                          : "the raw file of a root and the names of two nodes are",
                               call.name));
    return mount_status::usage;
  }
  const std::string& path = parsed.operands.front();
  const auto root = mounted_root::find(path);
  if (!root || !*root) {
    complain(call, root ? root->error().message()
                        : fmt::format("'{}' is not the raw file of a root of a mount", path));
    return mount_status::usage;
  }
  std::string line(call.name);
  for (std::size_t i = 1; i < count; i++)
    line += " " + parsed.operands[i];
  const result<> done = (*root)->control().command("ctl", line + "\n");
  if (done)
    return 0;
  complain(call, done.error().message());
  return mount_status::refused;
}

} // namespace

int run_flush(const command_call& call) {
  return run_verb(call, "FILE", "Makes all that was written to a root of a mount durable.", 1);
}

int run_retry(const command_call& call) {
  return run_verb(
      call, "FILE",
      "Tries again to open a root of a mount that could not be opened; its reason is in\n"
      "FILE.d/last-error.",
      1);
}

int run_backing(const command_call& call) {
  return run_verb(
      call, "FILE NODE OTHER",
      "Gives node NODE of the graph of a mount the backing node OTHER, 'none' for no\n"
      "more, while FILE, a root over it, is served. It is kept in the state file beside\n"
      "the graph file.",
      3);
}

} // namespace bgfs
