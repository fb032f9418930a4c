// SPDX-License-Identifier: MIT
// bgfs job: long work that goes on in a mount, as .bgfs/jobs shows it. Exit statuses are those of
// bgfs reload: 1 for a wrong call and what is no mount, 32 for what the mount refuses.
#include "config/commands/commands.h"
#include "config/mount_client.h"
#include "graph/base/text.h"

#include <algorithm>

namespace bgfs {
namespace {

constexpr std::string_view jobs_directory = ".bgfs/jobs";

int refuse_usage(const command_call& call, const std::string& why) {
  complain(call, why + "; see 'bgfs job --help'");
  return mount_status::usage;
}

// Without the newline at its end; nothing of a job that has ended since it was listed.
std::string value_of(const mount_client& mount, const std::string& id, std::string_view name) {
  const result<std::string> text = mount.read(fmt::format("{}/{}/{}", jobs_directory, id, name));
  return text ? text->substr(0, text->find('\n')) : std::string();
}

result<> list(const mount_client& mount) {
  BGFS_TRY(const std::vector<std::string> ids, mount.list(std::string(jobs_directory)));
  std::string text;
  for (const std::string& id : ids) {
    const std::string state = value_of(mount, id, "state");
    if (state.empty())
      continue;
    text +=
        fmt::format("{:<24} {:<10} {:>7} {:>12} {}\n", id, state, value_of(mount, id, "progress"),
                    value_of(mount, id, "speed"), value_of(mount, id, "error"));
  }
  if (!text.empty())
    print(fmt::format("{:<24} {:<10} {:>7} {:>12} {}\n", "job", "state", "percent", "speed",
                      "error") +
          text);
  return {};
}

result<> require_job(const mount_client& mount, const std::string& id) {
  BGFS_TRY(const std::vector<std::string> ids, mount.list(std::string(jobs_directory)));
  if (std::ranges::find(ids, id) != ids.end())
    return {};
  return fail(error_kind::not_found, "there is no job '{}'{}", id,
              ids.empty() ? ", and no other one"
                          : fmt::format("; there are {}", fmt::join(ids, ", ")));
}

result<> carry_out(const mount_client& mount, const std::vector<std::string>& given) {
  const std::string& verb = given[0];
  if (verb == "list")
    return list(mount);
  BGFS_CHECK(require_job(mount, given[2]));
  const std::string file = fmt::format("{}/{}/{}", jobs_directory, given[2], verb);
  return mount.command(file, (verb == "speed" ? given[3] : "1") + "\n");
}

} // namespace

int run_job(const command_call& call) {
  arguments known(
      call.name,
      "list PLACE\n"
      "       bgfs job cancel|pause|resume|complete|dismiss PLACE JOB\n"
      "       bgfs job speed PLACE JOB RATE",
      "Shows the long work that goes on in a mount, and what of it has failed; cancels\n"
      "it, pauses it, lets it go on, tells one that is ready to complete, forgets one\n"
      "that has failed, or sets how many bytes a second it may copy (0: no limit). PLACE\n"
      "is the directory of a mount.");
  const parsed_arguments parsed = parse_arguments(call, known, mount_status::usage);
  if (parsed.is_over)
    return parsed.status;
  constexpr std::string_view verbs[] = {"list",     "cancel",  "pause", "resume",
                                        "complete", "dismiss", "speed"};
  const std::vector<std::string>& given = parsed.operands;
  if (given.empty())
    return refuse_usage(call, fmt::format("one of {} is expected", fmt::join(verbs, ", ")));
  const std::string& verb = given[0];
  if (std::ranges::find(verbs, verb) == std::end(verbs))
    return refuse_usage(call,
                        fmt::format("there is no 'job {}'{}", verb, did_you_mean(verb, verbs)));
  const std::size_t count = verb == "list" ? 2 : verb == "speed" ? 4 : 3;
  if (given.size() != count)
    return refuse_usage(call, fmt::format("the directory of a mount{} expected",
                                          count == 2   ? " is"
                                          : count == 3 ? " and a job are"
                                                       : ", a job and a rate are"));
  const result<mount_client> mount = mount_client::find(given[1]);
  if (!mount) {
    complain(call, mount.error().message());
    return mount_status::usage;
  }
  const result<> done = carry_out(*mount, given);
  if (done)
    return 0;
  complain(call, done.error().message());
  return mount_status::refused;
}

} // namespace bgfs
