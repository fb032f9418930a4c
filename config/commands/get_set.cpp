// SPDX-License-Identifier: MIT
// bgfs get and set: any control file of a mount as a command, also where nothing but the raw file
// of a root can be seen and all is asked through its attributes. Exit statuses are those of bgfs
// reload.
#include "config/commands/commands.h"
#include "config/mount_client.h"
#include "config/mounted_root.h"

#include <cerrno>

namespace bgfs {
namespace {

// The control files that belong to what was named: those of a root, or of the whole mount.
struct control_place {
  control_tree control;
  std::string prefix; // of names in it
};

result<control_place> find_place(const std::string& given) {
  if (const auto root = mounted_root::find(given)) {
    BGFS_TRY(const mounted_root found, *root);
    return control_place{found.control(), ""};
  }
  BGFS_TRY(const mount_client mount, mount_client::find(given));
  if (mount.is_one_file())
    return control_place{control_tree::attributes_of(mount.directory()), ""};
  return control_place{control_tree::below(mount.directory()), ".bgfs/"};
}

constexpr std::string_view about_names =
    "PLACE is the raw file of a root, NAME a path in its\n"
    "control directory; or the directory of a mount, and NAME a path in its .bgfs.";

struct place_arguments {
  std::optional<control_place> at; // nothing: the command is over, with `status`
  std::string name;
  std::string text; // the last operand
  int status = 0;
};

place_arguments take_place(const command_call& call, arguments& known, std::size_t count,
                           std::string_view expected) {
  const parsed_arguments parsed = parse_arguments(call, known, mount_status::usage);
  if (parsed.is_over)
    return {.status = parsed.status};
  if (parsed.operands.size() != count) {
    complain(call, fmt::format("{} are expected; see 'bgfs {} --help'", expected, call.name));
    return {.status = mount_status::usage};
  }
  result<control_place> at = find_place(parsed.operands[0]);
  if (!at) {
    complain(call, at.error().message());
    return {.status = mount_status::usage};
  }
  const std::string name = at->prefix + parsed.operands[1];
  return {.at = *std::move(at), .name = name, .text = parsed.operands.back()};
}

int end(const command_call& call, const result<>& done) {
  if (done)
    return 0;
  complain(call, done.error().message());
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
  arguments known(call.name, "PLACE NAME",
                  fmt::format("Prints a control file of a mount, or the names in a directory of "
                              "them.\n{}",
                              about_names));
  const place_arguments given = take_place(call, known, 2, "a place and a name");
  if (!given.at)
    return given.status;
  return end(call, print_view(given.at->control, given.name));
}

int run_set(const command_call& call) {
  arguments known(call.name, "PLACE NAME VALUE",
                  fmt::format("Writes a value to a control file of a mount, and says why if it is "
                              "refused.\n{}",
                              about_names));
  const place_arguments given = take_place(call, known, 3, "a place, a name and a value");
  if (!given.at)
    return given.status;
  return end(call, given.at->control.command(given.name, given.text));
}

} // namespace bgfs
