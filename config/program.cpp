// SPDX-License-Identifier: MIT
#include "config/program.h"

#include "config/commands/commands.h"
#include "config/mount_helper.h"
#include "graph/base/text.h"

#include <algorithm>
#include <cstdio>

namespace bgfs {

namespace {

constexpr command command_table[] = {
    {"mount", "show the disks of a graph or of one image as files in a directory", run_mount},
    {"umount", "end a mount, when every image is closed", run_umount},
    {"reload", "read the graph of a mount again and apply the difference", run_reload},
    {"state", "say how the roots of a mount are", run_state},
    {"wait", "wait until a root of a mount can be used", run_wait},
    {"events", "print what happens in a mount", run_events},
    {"export", "add a root to a mounted graph for good, or remove one", run_export},
    {"point", "freeze a disk of a mount, or all of them, at one instant", run_point},
    {"job", "list, pause, slow down or cancel the long work of a mount", run_job},
    {"flush", "make what was written to a root of a mount durable", run_flush},
    {"retry", "try again to open a root of a mount that failed", run_retry},
    {"backing", "give a node of a mount another backing node", run_backing},
    {"get", "print any control file of a mount", run_get},
    {"set", "write any control file of a mount", run_set},
    {"config", "check a graph file without opening an image", run_config},
    {"drivers", "list the drivers, or the options of one", run_drivers},
    {"trace-points", "list what a mount can trace", run_trace_points},
    {"create", "make a new image", run_create},
    {"info", "say what an image is", run_info},
    {"map", "say which parts of an image hold data, and where", run_map},
    {"check", "look for contradictions in an image, and repair it", run_check},
    {"convert", "copy images into another format", run_convert},
    {"compare", "say whether two images show the same disk", run_compare},
    {"snapshot", "list, create, apply, rename or delete the snapshots of an image", run_snapshot},
    {"bitmap", "add, change or remove the dirty bitmaps of an image", run_bitmap},
    {"amend", "change how an image is made, where it is", run_amend},
    {"commit", "give the content of an overlay to the image below it", run_commit},
    {"rebase", "give an overlay another backing file", run_rebase},
    {"resize", "make the disk of an image longer or shorter", run_resize},
    {"dd", "copy a part of an image", run_dd},
    {"bench", "measure how long requests to an image take", run_bench},
    {"measure", "say how large a new image will be", run_measure},
    {"io", "read, write and examine an image by commands", run_io},
};

std::string general_help() {
  std::string text = "usage: bgfs COMMAND [OPTION]... [OPERAND]...\n\ncommands:\n";
  for (const command& c : command_table)
    text += fmt::format("  {:<14}{}\n", c.name, c.summary);
  text += "  help          show this text, or that of a command\n\n"
          "'bgfs help COMMAND' shows its options; 'bgfs --version' the version.\n";
  return text;
}

const command* find_command(std::string_view name) {
  const auto found = std::ranges::find(command_table, name, &command::name);
  return found == std::end(command_table) ? nullptr : found;
}

int refuse_command(const std::string& name) {
  std::vector<std::string_view> names;
  for (const command& c : command_table)
    names.push_back(c.name);
  names.emplace_back("help");
  std::string list;
  for (const std::string_view n : names)
    list += fmt::format("{}{}", list.empty() ? "" : ", ", n);
  fmt::print(stderr, "bgfs: there is no command '{}'{}\nbgfs: the commands are {}\n", name,
             did_you_mean(name, names), list);
  return 1;
}

int show_help(std::span<const std::string> given, const registry& drivers, mounter& mounts) {
  if (given.empty()) {
    print(general_help());
    return 0;
  }
  const command* found = find_command(given.front());
  if (found == nullptr)
    return refuse_command(given.front());
  return found->run({given.front(), {"--help"}, drivers, mounts});
}

int dispatch(std::span<const std::string> given, const registry& drivers, mounter& mounts) {
  if (given.empty()) {
    fmt::print(stderr, "{}", general_help());
    return 1;
  }
  const std::string& name = given.front();
  const auto rest = given.subspan(1);
  if (name == "--version" || name == "-V" || name == "version") {
    print("bgfs " BGFS_VERSION "\n");
    return 0;
  }
  if (name == "help" || name == "--help" || name == "-h")
    return show_help(rest, drivers, mounts);
  const command* found = find_command(name);
  if (found == nullptr)
    return refuse_command(name);
  return found->run({name, {rest.begin(), rest.end()}, drivers, mounts});
}

} // namespace

std::span<const command> all_commands() {
  return command_table;
}

void print(std::string_view text) {
  (void)std::fwrite(text.data(), 1, text.size(), stdout); // run_program checks the stream
}

void complain(const command_call& call, std::string_view message) {
  (void)std::fflush(stdout);
  fmt::print(stderr, "bgfs {}: {}\n", call.name, message);
}

parsed_arguments parse_arguments(const command_call& call, arguments& known, int status_of_misuse) {
  result<std::vector<std::string>> operands = known.parse(call.arguments);
  if (!operands) {
    complain(call, operands.error().message());
    return {{}, true, status_of_misuse};
  }
  if (known.asks_help()) {
    print(known.help());
    return {{}, true, 0};
  }
  return {*std::move(operands)};
}

// What was printed may not have arrived: a full disk or a closed pipe behind standard output is a
// failure of the command.
int run_program(int argc, char** argv, const registry& drivers, mounter& mounts) {
  std::vector<std::string> given(argv + std::min(argc, 1), argv + argc);
  if (auto translated = translate_helper_call(argc > 0 ? argv[0] : "", given)) {
    if (!*translated) {
      fmt::print(stderr, "{}: {}\n", argv[0], translated->error().message());
      return 1;
    }
    given = **std::move(translated);
  }
  const int status = dispatch(given, drivers, mounts);
  const bool has_failed = std::ferror(stdout) != 0 || std::fflush(stdout) != 0;
  if (has_failed && status == 0) {
    fmt::print(stderr, "bgfs: cannot write to standard output\n");
    return 1;
  }
  return status;
}

} // namespace bgfs
