// SPDX-License-Identifier: MIT
#include "config/export_schema.h"

#include "config/document_values.h"
#include "graph/base/text.h"

#include <algorithm>
#include <charconv>
#include <grp.h>
#include <pwd.h>

namespace bgfs {

namespace {

constexpr std::size_t iothread_name_length_max = 64;

constexpr std::string_view truncate_choices[] = {"refuse", "zero"};
constexpr std::string_view control_choices[] = {"beside", "hidden", "none"};
constexpr std::string_view cache_choices[] = {"none", "kernel"};
constexpr std::string_view passthrough_choices[] = {"auto", "on", "off"};
constexpr std::string_view open_choices[] = {"at-mount", "on-demand"};
constexpr std::string_view snapshot_choices[] = {"internal", "external"};

constexpr option option_list[] = {
    {.name = "name", .help = "the name of the root; the node's if not given"},
    {.name = "node-name", .help = "the node it shows", .is_required = true},
    {.name = "writable",
     .type = option_type::boolean,
     .help = "let it be written",
     .default_text = "false"},
    {.name = "growable",
     .type = option_type::boolean,
     .help = "writes past the end grow the disk",
     .default_text = "false"},
    {.name = "on-truncate",
     .type = option_type::choice,
     .help = "what truncation does: fail, or discard everything and keep the size",
     .default_text = "refuse",
     .choices = truncate_choices},
    {.name = "control",
     .type = option_type::choice,
     .help = "the directory NAME.d: listed, reachable by name, or absent",
     .default_text = "beside",
     .choices = control_choices},
    {.name = "cache",
     .type = option_type::choice,
     .help = "what the kernel caches",
     .default_text = "none",
     .choices = cache_choices},
    {.name = "passthrough",
     .type = option_type::choice,
     .help = "let the kernel serve the file that holds the disk",
     .default_text = "auto",
     .choices = passthrough_choices},
    {.name = "snapshots.mode",
     .type = option_type::choice,
     .help = "where new snapshots go: into the image, or into overlays",
     .default_text = "internal",
     .choices = snapshot_choices},
    {.name = "snapshots.directory", .help = "where overlays are made"},
    {.name = "points.directory",
     .help = "where a point keeps what was overwritten since, in a file without a name",
     .default_text = "/var/tmp"},
    {.name = "points.limit",
     .type = option_type::size,
     .help =
         "bytes that a point keeps at most, after which it breaks; absent: what the file system "
         "has"},
    {.name = "open",
     .type = option_type::choice,
     .help = "when the image is opened",
     .default_text = "at-mount",
     .choices = open_choices},
    {.name = "exclusive",
     .type = option_type::boolean,
     .help = "while the raw file is open for writing no partition can be, and the reverse",
     .default_text = "false"},
    {.name = "required",
     .type = option_type::boolean,
     .help = "the mount fails if this root does",
     .default_text = "false"},
    {.name = "untrusted",
     .type = option_type::boolean,
     .help = "the image may come from anywhere: its header may name no other file",
     .default_text = "false"},
    {.name = "mode", .help = "permission bits, such as 0640"},
    {.name = "owner", .help = "user name or number"},
    {.name = "group", .help = "group name or number"},
    {.name = "flush-interval",
     .type = option_type::duration,
     .help = "how long writes without fsync may be at risk; 0: only fsync makes durable",
     .default_text = "5s",
     .maximum = 24 * 3'600'000},
    {.name = "iothread",
     .help = "name of the thread that serves it, and everything connected with its nodes; threads "
             "with the same name are the same; the mount's own if not given"},
};

template<class... Args>
std::unexpected<error> wrong(const source_mark& mark, const export_spec& root,
                             fmt::format_string<Args...> format, Args&&... args) {
  return fail(error_kind::invalid_argument, "{}export '{}': {}", mark.prefix(), root.name,
              fmt::format(format, std::forward<Args>(args)...));
}

std::optional<u32> parse_u32(std::string_view text, int base) {
  u32 number = 0;
  const char* const end = text.data() + text.size();
  const auto [after, problem] = std::from_chars(text.data(), end, number, base);
  if (text.empty() || problem != std::errc() || after != end)
    return std::nullopt;
  return number;
}

// The number behind a choice is its place in the list of choices.
template<class Enum>
Enum choice_of(const options& o, std::string_view name, std::span<const std::string_view> choices) {
  const auto at = std::ranges::find(choices, o.text(name));
  return static_cast<Enum>(at - choices.begin());
}

result<> read_mode(const options& o, export_spec& root) {
  if (!o.is_set("mode"))
    return {};
  const std::string& text = o.text("mode");
  const std::size_t prefix = text.starts_with("0o") ? 2 : 1;
  const auto bits =
      text.starts_with('0') ? parse_u32(std::string_view(text).substr(prefix), 8) : std::nullopt;
  if (!bits || *bits > 0777)
    return wrong(o.mark("mode"), root,
                 "'mode' is octal with a leading zero, 0000 to 0777, such as 0640; not '{}'", text);
  root.mode = *bits;
  return {};
}

result<> read_owner(const options& o, export_spec& root) {
  const std::string& user = o.text("owner");
  const std::string& group = o.text("group");
  if (!user.empty()) {
    root.owner = parse_u32(user, 10);
    const passwd* known = root.owner ? nullptr : ::getpwnam(user.c_str()); // NOLINT: one thread
    if (known != nullptr)
      root.owner = known->pw_uid;
    if (!root.owner)
      return wrong(o.mark("owner"), root, "there is no user '{}'", user);
  }
  if (!group.empty()) {
    root.group = parse_u32(group, 10);
    const ::group* known = root.group ? nullptr : ::getgrnam(group.c_str()); // NOLINT: one thread
    if (known != nullptr)
      root.group = known->gr_gid;
    if (!root.group)
      return wrong(o.mark("group"), root, "there is no group '{}'", group);
  }
  return {};
}

result<> read_iothread(const options& o, export_spec& root) {
  root.iothread = o.text("iothread");
  const bool is_plain = std::ranges::all_of(root.iothread, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
  const bool is_named = !o.is_set("iothread") || !root.iothread.empty();
  if (!is_plain || !is_named || root.iothread.size() > iothread_name_length_max)
    return wrong(o.mark("iothread"), root,
                 "the name of a thread has 1 to {} letters, digits, '-', '_' or '.'; not '{}'",
                 iothread_name_length_max, root.iothread.substr(0, iothread_name_length_max));
  return {};
}

result<> read_snapshots(const options& o, const std::string& directory, export_spec& root) {
  root.snapshots = choice_of<snapshot_mode>(o, "snapshots.mode", snapshot_choices);
  const bool is_external = root.snapshots == snapshot_mode::external;
  const bool has_directory = o.is_set("snapshots.directory");
  if (is_external && !has_directory)
    return wrong(o.mark("snapshots.mode"), root,
                 "'snapshots: {{mode: external}}' needs a 'directory' for the overlays");
  if (!is_external && has_directory)
    return wrong(
        o.mark("snapshots.directory"), root,
        "'snapshots: {{directory: ...}}' is for 'mode: external'; internal snapshots lie in "
        "the image");
  if (is_external)
    root.snapshots_directory = absolute_in(directory, o.text("snapshots.directory"));
  return {};
}

result<> check_combinations(const options& o, const export_spec& root) {
  if (root.is_growable && !root.is_writable)
    return wrong(o.mark("growable"), root, "'growable' needs 'writable: true'");
  if (root.on_truncate == truncate_policy::zero && !root.is_writable)
    return wrong(o.mark("on-truncate"), root, "'on-truncate: zero' needs 'writable: true'");
  if (root.passthrough != passthrough_mode::on)
    return {};
  if (root.is_writable && !root.is_growable)
    return wrong(o.mark("passthrough"), root,
                 "'passthrough: on' needs 'growable: true' in a writable export: the kernel writes "
                 "to the file by itself, and nobody keeps it from writing past the end");
  if (root.cache == cache_mode::kernel)
    return wrong(o.mark("passthrough"), root,
                 "'passthrough: on' and 'cache: kernel' exclude each other: what is passed through "
                 "is cached already, as pages of the image's file; leave 'cache' out");
  return {};
}

// Numbers that are names: `owner: 1000` is as good as `owner: "1000"`. A mode is not: 640 and 0640
// are different numbers to some readers, so the zero is asked for.
value with_text_ids(value given) {
  for (const std::string_view key : {"owner", "group", "mode"}) {
    const value* v = given.find(key);
    if (v == nullptr || v->as_integer() == nullptr)
      continue;
    value text = std::to_string(*v->as_integer());
    text.mark = v->mark;
    given.set(std::string(key), std::move(text));
  }
  return given;
}

} // namespace

const option_schema export_options{"an export", option_list};

result<> check_root_name(std::string_view name) {
  const std::string_view shown = name.substr(0, root_name_length_max + 16);
  if (name.empty())
    return fail(error_kind::invalid_argument, "the name of a root cannot be empty");
  if (name.size() > root_name_length_max)
    return fail(error_kind::invalid_argument,
                "the name of a root is {} bytes at most; '{}...' has {}", root_name_length_max,
                name.substr(0, 32), name.size());
  if (name.starts_with('.'))
    return fail(error_kind::invalid_argument,
                "'{}' cannot be the name of a root: names that begin with '.' are the mount's own",
                shown);
  if (name.ends_with(".d"))
    return fail(error_kind::invalid_argument,
                "'{}' cannot be the name of a root: 'NAME.d' is the control directory of NAME",
                shown);
  const bool is_one_component = std::ranges::none_of(
      name, [](char c) { return c == '/' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
  if (!is_one_component)
    return fail(error_kind::invalid_argument,
                "'{}' cannot be the name of a root: it has a '/' or a control character", shown);
  return {};
}

result<parsed_export> parse_export(const value& given, const std::string& directory) {
  const std::array<const option_schema*, 1> schemas = {&export_options};
  const value* name = given.find("name");
  const std::string* name_text = name == nullptr ? nullptr : name->as_text();
  const std::string subject =
      name_text == nullptr ? "an export" : fmt::format("export '{}'", name_text->substr(0, 256));
  BGFS_TRY(const options o, validate_options(schemas, with_text_ids(given), {}, subject));
  export_spec root;
  root.node_name = o.text("node-name");
  root.name = o.is_set("name") ? o.text("name") : root.node_name;
  root.mark = given.mark;
  root.passthrough_mark = o.mark("passthrough");
  if (result<> ok = check_root_name(root.name); !ok)
    return fail(error_kind::invalid_argument, "{}{}",
                o.mark(o.is_set("name") ? "name" : "node-name").prefix(), ok.error().message());
  root.is_writable = o.flag("writable");
  root.is_growable = o.flag("growable");
  root.on_truncate = choice_of<truncate_policy>(o, "on-truncate", truncate_choices);
  root.control = choice_of<control_mode>(o, "control", control_choices);
  root.cache = choice_of<cache_mode>(o, "cache", cache_choices);
  root.passthrough = choice_of<passthrough_mode>(o, "passthrough", passthrough_choices);
  root.open = choice_of<open_mode>(o, "open", open_choices);
  root.is_exclusive = o.flag("exclusive");
  root.is_required = o.flag("required");
  root.is_untrusted = o.flag("untrusted");
  root.flush_interval_ms = o.number("flush-interval");
  BGFS_CHECK(read_mode(o, root));
  BGFS_CHECK(read_owner(o, root));
  BGFS_CHECK(read_iothread(o, root));
  root.points_directory = absolute_in(directory, o.text("points.directory"));
  root.points_limit = o.maybe_number("points.limit");
  BGFS_CHECK(read_snapshots(o, directory, root));
  BGFS_CHECK(check_combinations(o, root));
  return parsed_export{std::move(root), o.mark("writable"), o.mark("node-name"), o.mark("iothread"),
                       o.mark("cache")};
}

value write_export(const export_spec& root) {
  value v = value::map();
  v.set("name", root.name);
  v.set("node-name", root.node_name);
  v.set("writable", root.is_writable);
  v.set("growable", root.is_growable);
  v.set("on-truncate", truncate_choices[static_cast<std::size_t>(root.on_truncate)]);
  v.set("control", control_choices[static_cast<std::size_t>(root.control)]);
  v.set("cache", cache_choices[static_cast<std::size_t>(root.cache)]);
  v.set("passthrough", passthrough_choices[static_cast<std::size_t>(root.passthrough)]);
  v.set("open", open_choices[static_cast<std::size_t>(root.open)]);
  v.set("exclusive", root.is_exclusive);
  v.set("required", root.is_required);
  v.set("untrusted", root.is_untrusted);
  if (root.mode)
    v.set("mode", fmt::format("{:04o}", *root.mode));
  if (root.owner)
    v.set("owner", static_cast<u32>(*root.owner));
  if (root.group)
    v.set("group", static_cast<u32>(*root.group));
  v.set("flush-interval", root.flush_interval_ms % 1000 == 0
                              ? fmt::format("{}s", root.flush_interval_ms / 1000)
                              : fmt::format("{}ms", root.flush_interval_ms));
  value snapshots = value::map();
  snapshots.set("mode", snapshot_choices[static_cast<std::size_t>(root.snapshots)]);
  if (root.snapshots == snapshot_mode::external)
    snapshots.set("directory", root.snapshots_directory);
  v.set("snapshots", std::move(snapshots));
  value points = value::map();
  points.set("directory", root.points_directory);
  if (root.points_limit)
    points.set("limit", *root.points_limit);
  v.set("points", std::move(points));
  if (!root.iothread.empty())
    v.set("iothread", root.iothread);
  return v;
}

} // namespace bgfs
