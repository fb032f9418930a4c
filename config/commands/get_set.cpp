// SPDX-License-Identifier: MIT
// bgfs get and set: any control file of a mount as a command, also where nothing but the raw file
// of a root can be seen and all is asked through its attributes. Exit statuses are those of bgfs
// reload.
#include "config/commands/commands.h"
#include "config/mounted_root.h"
#include "graph/base/text.h"

#include <cerrno>
#include <functional>

namespace bgfs {
namespace {

constexpr std::string_view about_names =
    "PLACE is the raw file of a root, NAME a path in its\n"
    "control directory; or the directory of a mount, and NAME a path in its .bgfs.";

// With the name that is there and may have been meant.
error with_suggestion(error why, const control_tree& control, const std::string& name) {
  if (why.os_error() != ENOENT && why.os_error() != ENODATA)
    return why;
  const std::size_t slash = name.rfind('/');
  const bool is_at_top = slash == std::string::npos;
  const result<std::vector<std::string>> there =
      control.list(is_at_top ? std::string() : name.substr(0, slash));
  if (!there)
    return why;
  const std::vector<std::string_view> names(there->begin(), there->end());
  const std::string last = is_at_top ? name : name.substr(slash + 1);
  return {why.kind(), why.message() + did_you_mean(last, names), why.os_error()};
}

// What was given, carried out; the exit status.
int run_on_place(const command_call& call, std::string usage, std::string_view about,
                 std::size_t count, std::string_view expected,
                 const std::function<result<>(const control_tree&, const std::string& name,
                                              const std::string& last_operand)>& carry_out) {
  arguments known(call.name, std::move(usage), fmt::format("{}\n{}", about, about_names));
  const parsed_arguments parsed = parse_arguments(call, known, mount_status::usage);
  if (parsed.is_over)
    return parsed.status;
  if (parsed.operands.size() != count) {
    complain(call, fmt::format("{} are expected; see 'bgfs {} --help'", expected, call.name));
    return mount_status::usage;
  }
  const result<control_place> at = find_control_place(parsed.operands[0]);
  if (!at) {
    complain(call, at.error().message());
    return mount_status::usage;
  }
  const std::string name = at->prefix + parsed.operands[1];
  const result<> done = carry_out(at->control, name, parsed.operands.back());
  if (done)
    return 0;
  complain(call, with_suggestion(done.error(), at->control, name).message());
  return mount_status::refused;
}

result<> print_names(const control_tree& control, const std::string& directory) {
  BGFS_TRY(const std::vector<std::string> names, control.list(directory));
  for (const std::string& name : names)
    print(name + "\n");
  return {};
}

// A name with a slash behind it is a directory, as in the attributes.
result<> print_view(const control_tree& control, const std::string& name) {
  if (name.ends_with('/'))
    return print_names(control, name.substr(0, name.size() - 1));
  const result<std::string> text = control.read(name);
  if (!text && text.error().os_error() == EISDIR)
    return print_names(control, name);
  BGFS_CHECK(text);
  print(*text);
  return {};
}

} // namespace

int run_get(const command_call& call) {
  return run_on_place(call, "PLACE NAME",
                      "Prints a control file of a mount, or the names in a directory of them.", 2,
                      "a place and a name",
                      [](const control_tree& control, const std::string& name, const std::string&) {
                        return print_view(control, name);
                      });
}

int run_set(const command_call& call) {
  return run_on_place(call, "PLACE NAME VALUE",
                      "Writes a value to a control file of a mount, and says why if it is refused.",
                      3, "a place, a name and a value",
                      [](const control_tree& control, const std::string& name,
                         const std::string& text) { return control.command(name, text); });
}

} // namespace bgfs
