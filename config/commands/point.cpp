// SPDX-License-Identifier: MIT
// bgfs point: frozen instants of one root of a mount, or of all. Exit statuses are those of bgfs
// reload: 1 for a wrong call and what is no mount, 32 for what the mount refuses.
#include "config/commands/commands.h"
#include "config/mounted_root.h"
#include "graph/base/text.h"

#include <algorithm>

namespace bgfs {
namespace {

int refuse_usage(const command_call& call, const std::string& why) {
  complain(call, why + "; see 'bgfs point --help'");
  return mount_status::usage;
}

// "mon: ok", and why not. Of all roots together there is no state: the names alone.
result<> list(const control_tree& control, const std::string& directory) {
  BGFS_TRY(const std::vector<std::string> names, control.list(directory));
  for (const std::string& name : names) {
    const result<std::string> state = control.read(directory + "/" + name + "/state");
    print(state ? fmt::format("{}: {}\n", name, state->substr(0, state->find('\n'))) : name + "\n");
  }
  return {};
}

} // namespace

int run_point(const command_call& call) {
  arguments known(call.name,
                  "add PLACE NAME\n"
                  "       bgfs point remove PLACE NAME\n"
                  "       bgfs point list PLACE",
                  "Freezes a disk at one instant, by copying what is written over, and begins a\n"
                  "bitmap NAME in the same instant; ends that, or lists such points. PLACE is the\n"
                  "raw file of a root, or the directory of a mount, for all of its roots at once.");
  const parsed_arguments parsed = parse_arguments(call, known, mount_status::usage);
  if (parsed.is_over)
    return parsed.status;
  constexpr std::string_view verbs[] = {"add", "remove", "list"};
  const std::vector<std::string>& given = parsed.operands;
  if (given.empty())
    return refuse_usage(call, "'add', 'remove' or 'list' is expected");
  const std::string& verb = given[0];
  if (std::ranges::find(verbs, verb) == std::end(verbs))
    return refuse_usage(call,
                        fmt::format("there is no 'point {}'{}", verb, did_you_mean(verb, verbs)));
  if (given.size() != (verb == "list" ? 2U : 3U))
    return refuse_usage(call, verb == "list"
                                  ? "a raw file or a directory is expected"
                                  : "a raw file or a directory, and a name are expected");
  const result<control_place> at = find_control_place(given[1]);
  if (!at) {
    complain(call, at.error().message());
    return mount_status::usage;
  }
  const std::string directory = at->prefix + "points";
  result<> done;
  if (verb != "list")
    done = control_tree::check_entry_name("point", given[2]);
  if (!done) {
    complain(call, done.error().message());
    return mount_status::usage;
  }
  if (verb == "list")
    done = list(at->control, directory);
  else if (verb == "add")
    done = at->control.make_directory(directory + "/" + given[2]);
  else
    done = at->control.remove_directory(directory + "/" + given[2]);
  if (done)
    return 0;
  complain(call, done.error().message());
  return mount_status::refused;
}

} // namespace bgfs
