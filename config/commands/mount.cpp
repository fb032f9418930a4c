// SPDX-License-Identifier: MIT
// bgfs mount and umount: reads what is to be mounted and hands it to the mounter. Exit statuses are
// mount(8)'s.
#include "config/commands/commands.h"

#include "graph/base/text.h"

#include <charconv>
#include <fcntl.h>
#include <filesystem>

namespace bgfs {

namespace {

struct mount_arguments {
  image_request image;
  std::string ready_fd_text;
  std::vector<std::string> option_lists;
  std::vector<std::string> options; // of -o, one each
  bool is_graph = false;
  bool is_foreground = false;
  bool is_strict = false;
  bool is_fake = false;
  bool is_remount = false;
  bool is_read_only = false;
  int ready_fd = -1;
};

// "a,b=c,d": commas within a value are written "\,", as fstab's readers do.
std::vector<std::string> split_options(std::string_view list) {
  std::vector<std::string> options(1);
  while (!list.empty()) {
    if (list.starts_with("\\,") || list.starts_with("\\\\")) {
      options.back() += list[1];
      list.remove_prefix(2);
      continue;
    }
    if (list[0] == ',') {
      options.emplace_back();
    } else {
      options.back() += list[0];
    }
    list.remove_prefix(1);
  }
  std::erase(options, std::string());
  return options;
}

// Options of ours that say what to mount, so that a line of fstab can say everything; the others
// say how, and are the mounter's.
void take_option(mount_arguments& a, const std::string& option) {
  const auto equals = option.find('=');
  const std::string name = option.substr(0, equals);
  const std::string value = equals == std::string::npos ? std::string() : option.substr(equals + 1);
  if (option == "writable") {
    a.image.is_writable = true;
  } else if (name == "format" && !value.empty()) {
    a.image.format = value;
  } else if (name == "allow-references" && !value.empty()) {
    a.image.allowed_references.push_back(value);
  } else if (option == "strict") {
    a.is_strict = true;
  } else if (option == "remount") {
    a.is_remount = true;
  } else {
    a.is_read_only = a.is_read_only || option == "ro";
    a.options.push_back(option);
  }
}

result<> read_ready_fd(mount_arguments& a) {
  if (a.ready_fd_text.empty())
    return {};
  const char* const end = a.ready_fd_text.data() + a.ready_fd_text.size();
  const auto [after, problem] = std::from_chars(a.ready_fd_text.data(), end, a.ready_fd);
  if (problem != std::errc() || after != end || a.ready_fd < 0)
    return fail(error_kind::invalid_argument, "option '--ready-fd' is a number, not '{}'",
                a.ready_fd_text);
  if (::fcntl(a.ready_fd, F_GETFD) < 0)
    return fail(error_kind::invalid_argument, "option '--ready-fd': {} is not open", a.ready_fd);
  return {};
}

result<> check_combination(const mount_arguments& a) {
  if (a.is_graph && (a.image.is_writable || !a.image.format.empty()))
    return fail(error_kind::invalid_argument,
                "--writable and -F are for one image; a graph file says 'writable' and 'driver' "
                "itself");
  if (a.is_read_only && a.image.is_writable)
    return fail(error_kind::invalid_argument, "'-o ro' and '--writable' contradict each other");
  return {};
}

// The serving process has another working directory: names are made absolute after the first
// reading, whose messages say what was given.
config_source absolute_source(config_source source, const graph_config& config) {
  source.image.filename = config.source();
  for (std::string& directory : source.image.allowed_references)
    directory = std::filesystem::absolute(directory).string();
  return source;
}

int mount_parsed(const command_call& call, mount_arguments a, std::string directory) {
  config_source source{a.image, a.is_graph, a.is_read_only};
  result<graph_config> config = source.read(call.drivers);
  if (!config) {
    complain(call, config.error().message());
    return mount_status::refused;
  }
  source = absolute_source(std::move(source), *config);
  source.secrets = config->secrets();
  return call.mounts.mount({.config = *std::move(config),
                            .source = std::move(source),
                            .directory = std::move(directory),
                            .options = std::move(a.options),
                            .is_foreground = a.is_foreground,
                            .is_strict = a.is_strict,
                            .is_fake = a.is_fake,
                            .ready_fd = a.ready_fd},
                           call.drivers);
}

bool is_yaml_name(const std::string& name) {
  return name.ends_with(".yaml") || name.ends_with(".yml");
}

void declare(arguments& known, mount_arguments& a) {
  known.texts('o', "options", "OPTIONS",
              "ro, strict, writable, format=FORMAT, allow-references=DIR, export=NAME, writeback, "
              "transport=auto|uring|dev, queues=N|auto, payload-budget=SIZE, remount, and those of "
              "mount(8) and FUSE",
              a.option_lists);
  known.flag('w', "writable", "let the image be written; needs -F", a.image.is_writable);
  known.text('F', "format", "FORMAT", "the image's format; absent: by its first bytes",
             a.image.format);
  known.flag(0, "config", "the first operand is a graph file, whatever it is called", a.is_graph);
  known.texts(0, "allow-references", "DIR", "let image headers name files below DIR",
              a.image.allowed_references);
  known.flag('f', "foreground", "stay in the foreground", a.is_foreground);
  known.flag(0, "fake", "check everything, and mount nothing", a.is_fake);
  known.text(0, "ready-fd", "N", "write \"ready\" to this descriptor when the mount is usable",
             a.ready_fd_text);
}

} // namespace

namespace {

int remount(const command_call& call, const mount_arguments& a,
            const std::vector<std::string>& operands) {
  if (operands.empty() || operands.size() > 2) {
    complain(call, "a directory, perhaps after what is mounted there, is expected; see 'bgfs mount "
                   "--help'");
    return mount_status::usage;
  }
  return call.mounts.remount({.source = operands.size() == 2 ? operands[0] : std::string(),
                              .directory = operands.back(),
                              .options = a.options});
}

} // namespace

int run_mount(const command_call& call) {
  mount_arguments a;
  arguments known(
      call.name,
      "[OPTION]... GRAPH.yaml|IMAGE DIRECTORY\n"
      "       bgfs mount [OPTION]... [-o export=NAME] GRAPH.yaml|IMAGE FILE\n"
      "       bgfs mount -o remount[,OPTION...] [GRAPH.yaml|IMAGE] DIRECTORY|FILE",
      "Shows the disks of a graph, or of one image, as files in a directory; or one of them\n"
      "on an existing regular file, which is hidden until it is unmounted. -o remount makes a\n"
      "mount read-only (ro) or writable (rw) and reloads it.");
  declare(known, a);
  parsed_arguments parsed = parse_arguments(call, known, mount_status::usage);
  if (parsed.is_over)
    return parsed.status;
  for (const std::string& list : a.option_lists)
    for (const std::string& option : split_options(list))
      take_option(a, option);
  if (a.is_remount)
    return remount(call, a, parsed.operands);
  if (parsed.operands.size() != 2) {
    complain(call,
             "a graph file or an image, and a directory or file are expected; see 'bgfs mount "
             "--help'");
    return mount_status::usage;
  }
  a.image.filename = parsed.operands[0];
  a.is_graph = a.is_graph || is_yaml_name(a.image.filename);
  result<> ok = read_ready_fd(a);
  if (ok)
    ok = check_combination(a);
  if (!ok) {
    complain(call, ok.error().message());
    return mount_status::usage;
  }
  return mount_parsed(call, std::move(a), std::move(parsed.operands[1]));
}

int run_umount(const command_call& call) {
  arguments known(call.name, "DIRECTORY|FILE",
                  "Ends a mount. Returns when every image is closed and unlocked.");
  const parsed_arguments parsed = parse_arguments(call, known, mount_status::usage);
  if (parsed.is_over)
    return parsed.status;
  if (parsed.operands.size() != 1) {
    complain(call, "one directory, or one mounted file, is expected; see 'bgfs umount --help'");
    return mount_status::usage;
  }
  return call.mounts.umount(parsed.operands[0]);
}

} // namespace bgfs
