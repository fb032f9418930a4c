// SPDX-License-Identifier: MIT
// bgfs reload, events, state and wait: a mount's control files as commands. Exit statuses are
// mount(8)'s: 1 for a wrong call and what is no mount, 32 for what the mount refuses.
#include "config/commands/commands.h"

#include "config/event_reader.h"
#include "config/event_waiter.h"
#include "config/reload_request.h"
#include "config/yaml.h"
#include "graph/base/text.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace bgfs {
namespace {

// The mount that the first operand names; nothing: the command is over, with `status`.
struct found_mount {
  std::optional<mount_client> mount;
  std::vector<std::string> more; // further operands
  int status = 0;
};

found_mount find_mount(const command_call& call, arguments& known, std::size_t more_count,
                       std::string_view expected) {
  parsed_arguments parsed = parse_arguments(call, known, mount_status::usage);
  if (parsed.is_over)
    return {.status = parsed.status};
  const std::size_t given = parsed.operands.size();
  if (given < 1 || given > 1 + more_count) {
    complain(call, fmt::format("{} expected; see 'bgfs {} --help'", expected, call.name));
    return {.status = mount_status::usage};
  }
  result<mount_client> mount = mount_client::find(parsed.operands[0]);
  if (!mount) {
    complain(call, mount.error().message());
    return {.status = mount_status::usage};
  }
  parsed.operands.erase(parsed.operands.begin());
  return {.mount = *std::move(mount), .more = std::move(parsed.operands)};
}

int show_plan(const command_call& call, const mount_client& mount) {
  const result<std::string> plan = mount.read(".bgfs/reload-plan");
  if (!plan) {
    const std::string why = mount.last_sentence("open:reload-plan");
    complain(call, fmt::format("would be refused: {}", why.empty() ? plan.error().message() : why));
    return mount_status::refused;
  }
  print(*plan);
  // What keeps it from being applied is in the plan, on lines of its own.
  const bool is_refused = plan->starts_with("would be refused: ") ||
                          plan->find("\nwould be refused: ") != std::string::npos;
  return is_refused ? mount_status::refused : 0;
}

} // namespace

int run_reload(const command_call& call) {
  bool is_dry = false;
  bool is_forced = false;
  arguments known(
      call.name, "[OPTION]... DIRECTORY|FILE",
      "Reads the graph file of a mount again and applies the difference, as one\n"
      "transaction: it happens as a whole, or nothing is changed and the reason is said.");
  known.flag('n', "dry-run", "show what would change, and change nothing", is_dry);
  known.flag(0, "force", "also where roots that are open would go or become read-only", is_forced);
  const found_mount at = find_mount(call, known, 0, "a directory is");
  if (!at.mount)
    return at.status;
  if (is_dry)
    return show_plan(call, *at.mount);
  const result<> done = request_reload(*at.mount, is_forced ? "force" : "1");
  if (done)
    return 0;
  const std::string& why = done.error().message();
  complain(call, why);
  const bool is_denied = done.error().kind() == error_kind::permission;
  return is_denied && !why.ends_with("nothing was changed") ? mount_status::usage
                                                            : mount_status::refused;
}

int run_events(const command_call& call) {
  bool is_following = false;
  arguments known(call.name, "[OPTION]... DIRECTORY|FILE",
                  "Prints what has happened in a mount, one line of JSON each: timestamp, event,\n"
                  "data. The last 1024 are kept. Following keeps the mount in use.");
  known.flag('f', "follow", "go on with what happens, until the mount ends", is_following);
  const found_mount at = find_mount(call, known, 0, "a directory is");
  if (!at.mount)
    return at.status;
  event_waiter waiter(*at.mount); // before the first look, so that nothing falls between
  result<event_reader> events = event_reader::of(*at.mount);
  if (!events) {
    complain(call, events.error().message());
    return mount_status::usage;
  }
  for (;;) {
    const result<std::string> lines = events->read_new();
    if (!lines)
      break;
    print(*lines);
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      return mount_status::usage; // run_program says it
    if (!is_following)
      return 0;
    waiter.wait(std::nullopt);
  }
  complain(call, fmt::format("the mount on '{}' has ended", at.mount->directory()));
  return mount_status::refused;
}

namespace {

struct root_state {
  std::string name;
  std::string word;
  std::string reason;
  [[nodiscard]] bool is_usable() const { return word == "ok" || word == "read-only"; }
  [[nodiscard]] bool is_hopeless() const { return word == "failed" || word == "corrupt"; }
};

// What `state` says: the word, and the reason on the second line.
void take_state(root_state& into, std::string_view text) {
  const std::size_t end = text.find('\n');
  into.word = text.substr(0, end);
  if (end == std::string_view::npos)
    return;
  const std::string_view rest = text.substr(end + 1);
  into.reason = rest.substr(0, rest.find('\n'));
}

// Every root, also those whose control directory is not there.
result<std::vector<root_state>> read_states(const mount_client& mount) {
  if (mount.is_one_file()) {
    BGFS_TRY(const std::string names, mount.read(".bgfs/exports"));
    root_state s{.name = names.substr(0, names.find('\n'))};
    BGFS_TRY(const std::string text, mount.read(s.name + ".d/state"));
    take_state(s, text);
    return std::vector{std::move(s)};
  }
  BGFS_TRY(const std::string text, mount.read(".bgfs/graph.json"));
  BGFS_TRY(const value graph, parse_json(text));
  std::vector<root_state> states;
  const value* const exports = graph.find("exports");
  if (exports == nullptr || exports->as_list() == nullptr)
    return states;
  for (const value& root : *exports->as_list()) {
    const value* const name = root.find("name");
    const value* const word = root.find("state");
    if (name == nullptr || name->as_text() == nullptr || word == nullptr ||
        word->as_text() == nullptr)
      continue;
    root_state s{.name = *name->as_text(), .word = *word->as_text()};
    const result<std::string> shown = mount.read(s.name + ".d/state");
    if (shown && shown->starts_with(s.word + "\n"))
      take_state(s, *shown);
    states.push_back(std::move(s));
  }
  return states;
}

void print_state(const root_state& s) {
  print(s.reason.empty() ? fmt::format("{}: {}\n", s.name, s.word)
                         : fmt::format("{}: {}: {}\n", s.name, s.word, s.reason));
}

std::string unknown_root(const std::vector<root_state>& states, const std::string& name) {
  std::vector<std::string_view> names;
  for (const root_state& s : states)
    names.push_back(s.name);
  return fmt::format("there is no root '{}'{}", name, did_you_mean(name, names));
}

} // namespace

int run_state(const command_call& call) {
  arguments known(call.name, "DIRECTORY [NAME]\n       bgfs state FILE",
                  "Prints the state of every root of a mount, or of one: its name, a word and the\n"
                  "reason. The exit status is 32 when one has failed or is corrupt.");
  const found_mount at = find_mount(call, known, 1, "a directory and perhaps a root's name are");
  if (!at.mount)
    return at.status;
  const result<std::vector<root_state>> states = read_states(*at.mount);
  if (!states) {
    complain(call, states.error().message());
    return mount_status::refused;
  }
  bool is_found = at.more.empty();
  bool has_failed = false;
  for (const root_state& s : *states) {
    if (!at.more.empty() && s.name != at.more[0])
      continue;
    is_found = true;
    has_failed = has_failed || s.is_hopeless();
    print_state(s);
  }
  if (!is_found) {
    complain(call, unknown_root(*states, at.more[0]));
    return mount_status::usage;
  }
  return has_failed ? mount_status::refused : 0;
}

namespace {

// A root that is opened on demand is opened for who opens its disk.
void ask_for(const std::string& disk) {
  for (const int flags : {O_RDONLY, O_WRONLY}) {
    const int fd = ::open(disk.c_str(), flags | O_CLOEXEC);
    if (fd < 0)
      continue;
    ::close(fd);
    return;
  }
}

// The name may be left out where there is only one.
result<std::string> root_to_wait_for(const mount_client& mount,
                                     const std::vector<std::string>& given) {
  if (!given.empty())
    return given[0];
  if (!mount.is_one_file())
    return fail(error_kind::invalid_argument, "the name of a root is expected; see 'bgfs wait "
                                              "--help'");
  BGFS_TRY(const std::string names, mount.read(".bgfs/exports"));
  return names.substr(0, names.find('\n'));
}

int wait_for_root(const command_call& call, const mount_client& mount, const std::string& name,
                  std::optional<std::chrono::steady_clock::time_point> until) {
  event_waiter waiter(mount);
  for (;;) {
    ask_for(mount.disk(name));
    const result<std::vector<root_state>> states = read_states(mount);
    if (!states) {
      complain(call, fmt::format("the mount on '{}' has ended: {}", mount.directory(),
                                 states.error().message()));
      return mount_status::refused;
    }
    const auto found = std::ranges::find(*states, name, &root_state::name);
    if (found == states->end()) {
      complain(call, unknown_root(*states, name));
      return mount_status::usage;
    }
    if (found->is_usable())
      return 0;
    if (found->is_hopeless()) {
      complain(call, fmt::format("root '{}' is {}{}{}", name, found->word,
                                 found->reason.empty() ? "" : ": ", found->reason));
      return mount_status::refused;
    }
    if (until && std::chrono::steady_clock::now() >= *until) {
      complain(call, fmt::format("root '{}' is still {}", name, found->word));
      return mount_status::refused;
    }
    waiter.wait(until);
  }
}

} // namespace

int run_wait(const command_call& call) {
  std::optional<std::chrono::steady_clock::time_point> until;
  arguments known(
      call.name, "[OPTION]... DIRECTORY NAME\n       bgfs wait [OPTION]... FILE",
      "Waits until a root can be used. The exit status is 0 when it is ok or read-only,\n"
      "32 when it has failed, is corrupt, or the time is over.");
  known.value(0, "timeout", "TIME", "how long to wait, such as 30s or 500ms; absent: for ever",
              [&until](const std::string& text) -> result<> {
                BGFS_TRY(const u64 ms, parse_duration(text));
                until = std::chrono::steady_clock::now() + std::chrono::milliseconds(ms);
                return {};
              });
  const found_mount at = find_mount(call, known, 1, "a directory and a root's name are");
  if (!at.mount)
    return at.status;
  const result<std::string> root = root_to_wait_for(*at.mount, at.more);
  if (!root) {
    complain(call, root.error().message());
    return mount_status::usage;
  }
  return wait_for_root(call, *at.mount, *root, until);
}

} // namespace bgfs
