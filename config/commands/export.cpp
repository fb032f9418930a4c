// SPDX-License-Identifier: MIT
// bgfs export add and remove: roots of a mounted graph that are there after a remount.
#include "config/commands/commands.h"

#include "config/export_schema.h"
#include "config/persisted_export.h"
#include "config/whole_file.h"
#include "config/yaml.h"
#include "graph/base/text.h"

#include <cerrno>
#include <filesystem>

namespace bgfs {
namespace {

namespace fs = std::filesystem;

struct export_arguments {
  std::string node_name;
  std::string format;
  std::string fragment_file; // --from
  std::vector<std::string> node_options;
  std::vector<std::string> export_options;
  bool is_writable = false;
};

// "cache.direct=on" into nested maps. Values are YAML's plain words, so that schemas decide.
result<> set_option(value& into, const std::string& option) {
  const std::size_t equals = option.find('=');
  if (equals == 0 || equals == std::string::npos)
    return fail(error_kind::invalid_argument, "'{}' is not of the form NAME=VALUE", option);
  std::string_view path(option.data(), equals);
  value* at = &into;
  for (std::size_t dot = path.find('.'); dot != std::string_view::npos; dot = path.find('.')) {
    const std::string key(path.substr(0, dot));
    if (at->find(key) == nullptr)
      at->set(key, value(value::map{}));
    at = const_cast<value*>(at->find(key));
    path.remove_prefix(dot + 1);
  }
  BGFS_TRY(value given, parse_yaml(option.substr(equals + 1)));
  at->set(std::string(path), std::move(given));
  return {};
}

// A fragment for an export of a node that the graph has, or of an image.
result<std::string> make_fragment(const export_arguments& a, const std::string& name,
                                  const std::string& image) {
  value whole;
  value root;
  const std::string node_name = a.node_name.empty() ? name : a.node_name;
  if (!image.empty()) {
    value file;
    file.set("driver", "file");
    file.set("filename", fs::absolute(image).lexically_normal().string());
    value node;
    node.set("node-name", node_name);
    node.set("driver", a.format);
    node.set("file", std::move(file));
    for (const std::string& option : a.node_options)
      BGFS_CHECK(set_option(node, option));
    whole.set("nodes", value::list{std::move(node)});
  }
  root.set("name", name);
  root.set("node-name", node_name);
  if (a.is_writable)
    root.set("writable", true);
  for (const std::string& option : a.export_options)
    BGFS_CHECK(set_option(root, option));
  whole.set("exports", value::list{std::move(root)});
  return to_json(whole, 2) + "\n"; // JSON is YAML
}

result<> check_combination(const export_arguments& a, bool has_image, bool has_name) {
  const bool is_from = !a.fragment_file.empty();
  if (is_from && (has_image || has_name || !a.node_name.empty() || !a.format.empty() ||
                  a.is_writable || !a.node_options.empty() || !a.export_options.empty()))
    return fail(error_kind::invalid_argument,
                "--from takes everything from the fragment; only the directory stands beside it");
  if (is_from)
    return {};
  if (!has_name)
    return fail(error_kind::invalid_argument, "the name of the root is expected");
  if (!has_image && a.node_name.empty())
    return fail(error_kind::invalid_argument,
                "say what is exported: an image, or a node of the graph with --node-name");
  if (has_image && a.format.empty())
    return fail(error_kind::invalid_argument, "say the format of the image with -F");
  if (!has_image && (!a.format.empty() || !a.node_options.empty()))
    return fail(error_kind::invalid_argument, "-F and --node-option are for an image");
  return {};
}

int refuse_usage(const command_call& call, std::string_view why) {
  complain(call, fmt::format("{}; see 'bgfs export --help'", why));
  return mount_status::usage;
}

int outcome(const command_call& call, const result<>& done) {
  if (done)
    return 0;
  complain(call, done.error().message());
  return mount_status::refused;
}

struct change {
  std::string name;
  std::string fragment;
};

result<change> read_change(const export_arguments& a, const std::vector<std::string>& operands) {
  if (!a.fragment_file.empty()) {
    BGFS_TRY(std::string text, read_whole_file(a.fragment_file));
    return change{fs::path(a.fragment_file).stem().string(), std::move(text)};
  }
  BGFS_TRY(std::string text,
           make_fragment(a, operands[2], operands.size() > 3 ? operands[3] : std::string()));
  return change{operands[2], std::move(text)};
}

int add(const command_call& call, const export_arguments& a,
        const std::vector<std::string>& operands) {
  if (operands.size() < 2 || operands.size() > 4)
    return refuse_usage(call, "'add', a directory, a name and perhaps an image are expected");
  if (const result<> ok = check_combination(a, operands.size() > 3, operands.size() > 2); !ok)
    return refuse_usage(call, ok.error().message());
  const result<change> wanted = read_change(a, operands);
  if (!wanted)
    return refuse_usage(call, wanted.error().message());
  if (const result<> ok = check_root_name(wanted->name); !ok)
    return refuse_usage(call, ok.error().message());
  const result<mount_client> mount = mount_client::find(operands[1]);
  if (!mount)
    return refuse_usage(call, mount.error().message());
  const result<persisted_exports> exports = persisted_exports::of(*mount);
  return outcome(call, exports ? exports->add(wanted->name, wanted->fragment)
                               : result<>(fail(exports.error())));
}

int remove(const command_call& call, const std::vector<std::string>& operands) {
  if (operands.size() != 3)
    return refuse_usage(call, "'remove', a directory and a name are expected");
  if (const result<> ok = check_root_name(operands[2]); !ok)
    return refuse_usage(call, ok.error().message());
  const result<mount_client> mount = mount_client::find(operands[1]);
  if (!mount)
    return refuse_usage(call, mount.error().message());
  const result<persisted_exports> exports = persisted_exports::of(*mount);
  return outcome(call, exports ? exports->remove(operands[2]) : result<>(fail(exports.error())));
}

void declare(arguments& known, export_arguments& a) {
  known.text(0, "node-name", "NODE", "the node to export; of an image: what to call its node",
             a.node_name);
  known.text('F', "format", "FORMAT", "the image's format", a.format);
  known.flag('w', "writable", "let the root be written", a.is_writable);
  known.texts('o', "option", "NAME=VALUE", "a further option of the export, such as growable=true",
              a.export_options);
  known.texts(0, "node-option", "NAME=VALUE",
              "a further option of the image's node, such as discard=unmap", a.node_options);
  known.text(0, "from", "FRAGMENT.yaml",
             "add this fragment under its own name; relative names in it are relative to where it "
             "goes",
             a.fragment_file);
}

} // namespace

int run_export(const command_call& call) {
  export_arguments a;
  arguments known(
      call.name,
      "add [OPTION]... DIRECTORY NAME [IMAGE]\n"
      "       bgfs export add DIRECTORY --from FRAGMENT.yaml\n"
      "       bgfs export remove DIRECTORY NAME",
      "Adds a root to a mounted graph, or removes one that was added so. It is kept in a\n"
      "fragment NAME.yaml where the graph file includes it, and applied by a reload;\n"
      "when that is refused, nothing is changed. Many callers may do this at once.");
  declare(known, a);
  const parsed_arguments parsed = parse_arguments(call, known, mount_status::usage);
  if (parsed.is_over)
    return parsed.status;
  const std::string verb = parsed.operands.empty() ? std::string() : parsed.operands[0];
  if (verb == "add")
    return add(call, a, parsed.operands);
  if (verb == "remove")
    return remove(call, parsed.operands);
  constexpr std::string_view verbs[] = {"add", "remove"};
  return refuse_usage(call, verb.empty() ? "'add' or 'remove' is expected"
                                         : fmt::format("there is no 'export {}'{}", verb,
                                                       did_you_mean(verb, verbs)));
}

} // namespace bgfs
