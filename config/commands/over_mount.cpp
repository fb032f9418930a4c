// SPDX-License-Identifier: MIT
#include "config/commands/over_mount.h"

#include "config/image_name.h"
#include "config/mount_client.h"
#include "config/render_check.h"
#include "config/render_info.h"
#include "config/snapshot_text.h"
#include "config/yaml.h"
#include "graph/base/text.h"

#include <algorithm>

namespace bgfs {
namespace {

int refuse(const command_call& call, const error& why) {
  complain(call, why.message());
  return 1;
}

result<value> read_json(const control_tree& control, const std::string& name) {
  BGFS_TRY(const std::string text, control.read(name));
  return parse_json(text);
}

} // namespace

std::optional<result<mounted_root>> find_mounted_root(const image_choice& choice) {
  const bool is_path = !choice.is_options && choice.format.empty() &&
                       !choice.name.starts_with("json:") && protocol_of_name(choice.name).empty();
  if (!is_path)
    return std::nullopt;
  return mounted_root::find(choice.name);
}

// --- snapshot ----------------------------------------------------------------------------------

namespace {

// As snapshots/ shows it, by name and id, since a name may be there twice.
std::string directory_of(const snapshot_info& s) {
  return escape_name(s.name) + "%id=" + escape_name(s.id);
}

result<std::string> find_directory(const control_tree& control, const std::string& which,
                                   bool prefers_id) {
  BGFS_TRY(const value info, read_json(control, "info.json"));
  const value* const list = info.find("snapshots");
  const std::vector<snapshot_info> all =
      list != nullptr ? parse_snapshots(*list) : std::vector<snapshot_info>();
  BGFS_TRY(const snapshot_key key, choose_snapshot(all, which, prefers_id));
  BGFS_TRY(const std::size_t at, find_snapshot(all, key));
  return directory_of(all[at]);
}

result<> list_snapshots(const control_tree& control) {
  BGFS_TRY(const value info, read_json(control, "info.json"));
  if (const value* const list = info.find("snapshots"))
    print(render_snapshots(*list));
  return {};
}

result<> change_snapshots(const control_tree& control, const asked_snapshot_action& action) {
  if (action.what == snapshot_action::create) {
    BGFS_CHECK(control_tree::check_entry_name("snapshot", action.which));
    return control.make_directory("snapshots/" + action.which);
  }
  BGFS_TRY(const std::string directory,
           find_directory(control, action.which, action.what == snapshot_action::apply));
  if (action.what == snapshot_action::apply)
    return control.command("ctl", "revert " + directory);
  if (action.what == snapshot_action::remove)
    return control.remove_directory("snapshots/" + directory);
  BGFS_CHECK(control_tree::check_entry_name("snapshot", action.new_name));
  return control.rename_directory("snapshots/" + directory, "snapshots/" + action.new_name);
}

} // namespace

int snapshot_over_mount(const command_call& call, const result<mounted_root>& root,
                        const asked_snapshot_action& action) {
  if (!root)
    return refuse(call, root.error());
  const result<> done = action.what == snapshot_action::list
                            ? list_snapshots(root->control())
                            : change_snapshots(root->control(), action);
  return done ? 0 : refuse(call, done.error());
}

namespace {

result<> change_group_snapshots(const mount_client& mount, const asked_snapshot_action& action) {
  const control_tree tree = control_tree::below(mount.directory());
  const std::string directory = ".bgfs/snapshots";
  if (action.what == snapshot_action::list) {
    BGFS_TRY(const std::vector<std::string> names, tree.list(directory));
    for (const std::string& name : names)
      print(name + "\n");
    return {};
  }
  if (action.what == snapshot_action::apply)
    return fail(error_kind::unsupported,
                "'{0}' is a mount, and its roots are not reverted all at once; revert each: 'bgfs "
                "snapshot -a {1} {0}/ROOT'",
                mount.directory(), action.which);
  if (action.what == snapshot_action::rename)
    return fail(error_kind::unsupported,
                "'{0}' is a mount, and the snapshots of its roots are not renamed all at once; "
                "rename each: 'bgfs snapshot --rename {1} --to {2} {0}/ROOT'",
                mount.directory(), action.which, action.new_name);
  BGFS_CHECK(control_tree::check_entry_name("snapshot", action.which));
  return action.what == snapshot_action::create
             ? tree.make_directory(directory + "/" + action.which)
             : tree.remove_directory(directory + "/" + action.which);
}

} // namespace

int group_snapshot_over_mount(const command_call& call, const std::string& directory,
                              const asked_snapshot_action& action) {
  const result<mount_client> mount = mount_client::find(directory);
  if (!mount)
    return refuse(call, mount.error());
  const result<> done = change_group_snapshots(*mount, action);
  return done ? 0 : refuse(call, done.error());
}

// --- bitmap ------------------------------------------------------------------------------------

namespace {

result<> add_bitmap(const command_call& call, const control_tree& control,
                    const mounted_bitmap_change& wanted) {
  BGFS_CHECK(control_tree::check_entry_name("bitmap", wanted.bitmap));
  const std::string directory = "bitmaps/" + wanted.bitmap;
  BGFS_CHECK(control.make_directory(directory));
  result<> done;
  if (wanted.granularity != 0)
    done = control.command(directory + "/granularity", std::to_string(wanted.granularity));
  if (!done) {
    (void)control.remove_directory(directory);
    return done;
  }
  const result<std::string> persistent = control.read(directory + "/persistent");
  const result<std::string> state = control.read(directory + "/state");
  if (persistent && state && *persistent == "0\n")
    complain(call, fmt::format("bitmap '{}' is not kept in the image: {}", wanted.bitmap,
                               state->substr(state->find('\n') + 1,
                                             state->rfind('\n') - state->find('\n') - 1)));
  return {};
}

result<> require_bitmap(const control_tree& control, const std::string& name) {
  BGFS_TRY(const std::vector<std::string> names, control.list("bitmaps"));
  if (std::ranges::find(names, escape_name(name)) != names.end())
    return {};
  if (names.empty())
    return fail(error_kind::not_found, "there is no bitmap '{}', and no other one", name);
  return fail(error_kind::not_found, "there is no bitmap '{}'; there are {}", name,
              fmt::join(names, ", "));
}

result<> remove_all(const control_tree& control) {
  BGFS_TRY(const std::vector<std::string> names, control.list("bitmaps"));
  for (const std::string& name : names)
    BGFS_CHECK(control.remove_directory("bitmaps/" + name));
  return {};
}

result<> carry_out(const command_call& call, const control_tree& control, const asked_action& a,
                   const mounted_bitmap_change& wanted) {
  const std::string directory = "bitmaps/" + escape_name(wanted.bitmap);
  if (a.what != bitmap_action::add && a.what != bitmap_action::remove_all)
    BGFS_CHECK(require_bitmap(control, wanted.bitmap));
  switch (a.what) {
  case bitmap_action::add:
    return add_bitmap(call, control, wanted);
  case bitmap_action::remove:
    return control.remove_directory(directory);
  case bitmap_action::remove_all:
    return remove_all(control);
  case bitmap_action::clear:
    return control.command(directory + "/clear", "1");
  case bitmap_action::enable:
    return control.command(directory + "/enabled", "1");
  case bitmap_action::disable:
    return control.command(directory + "/enabled", "0");
  case bitmap_action::merge:
    return control.command(directory + "/merge", escape_name(a.source));
  }
  return {};
}

} // namespace

int bitmap_over_mount(const command_call& call, const result<mounted_root>& root,
                      const mounted_bitmap_change& wanted) {
  if (!root)
    return refuse(call, root.error());
  if (!wanted.source_file.empty()) {
    complain(call, fmt::format("-b is not for '{}', which is mounted: both bitmaps have to be of "
                               "its disk",
                               root->path()));
    return 1;
  }
  std::size_t count = 0;
  for (const asked_action& a : wanted.actions) {
    const result<> done = carry_out(call, root->control(), a, wanted);
    if (!done && count > 0)
      complain(call, fmt::format("the first {} of {} actions were carried out", count,
                                 wanted.actions.size()));
    if (!done)
      return refuse(call, done.error());
    count++;
  }
  return 0;
}

// --- info, map ---------------------------------------------------------------------------------

namespace {

result<value> read_chain(const control_tree& control) {
  BGFS_TRY(const std::vector<std::string> names, control.list("layers"));
  const auto is_number = [](const std::string& name) {
    return std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; });
  };
  value::list layers;
  for (i64 i = 0; i < std::ranges::count_if(names, is_number); i++) {
    BGFS_TRY(value layer, read_json(control, fmt::format("layers/{}/info.json", i)));
    layers.push_back(std::move(layer));
  }
  return value(std::move(layers));
}

} // namespace

int info_over_mount(const command_call& call, const result<mounted_root>& root,
                    const mounted_info_request& wanted) {
  if (!root)
    return refuse(call, root.error());
  if (wanted.has_limits) {
    complain(call, fmt::format("--limits is not for '{}', which is mounted; read '{}'",
                               root->path(), root->control().path("nodes/NODE/limits")));
    return 1;
  }
  const result<value> info =
      wanted.is_chain ? read_chain(root->control()) : read_json(root->control(), "info.json");
  if (!info)
    return refuse(call, info.error());
  print(wanted.is_json ? render_info_json(*info) : render_info(*info));
  return 0;
}

int map_over_mount(const command_call& call, const result<mounted_root>& root, bool is_json,
                   bool is_of_a_part) {
  if (!root)
    return refuse(call, root.error());
  if (is_of_a_part) {
    complain(call, fmt::format("-s and -l are not for '{}', which is mounted: its map is read as a "
                               "whole",
                               root->path()));
    return 1;
  }
  const result<std::string> text = root->control().read(is_json ? "map.json" : "map");
  if (!text)
    return refuse(call, text.error());
  print(*text);
  return 0;
}

// --- check -------------------------------------------------------------------------------------

int check_status::of(const check_result& found) {
  return found.corruptions != 0 ? corrupt : found.leaks != 0 ? leaks : sound;
}

namespace {

std::string verb_of(check_mode mode) {
  switch (mode) {
  case check_mode::report:
    return "check";
  case check_mode::repair_leaks:
    return "check repair=leaks";
  case check_mode::repair_all:
    return "check repair=all";
  }
  return {};
}

void print_findings(const value& last) {
  const value* const findings = last.find("findings");
  if (findings == nullptr || findings->as_list() == nullptr)
    return;
  for (const value& line : *findings->as_list())
    if (line.as_text() != nullptr)
      fmt::print(stderr, "{}\n", *line.as_text());
}

std::string text_of(const value& map, std::string_view key) {
  const value* const v = map.find(key);
  return v != nullptr && v->as_text() != nullptr ? *v->as_text() : std::string();
}

} // namespace

int check_over_mount(const command_call& call, const result<mounted_root>& root,
                     const mounted_check_request& wanted) {
  if (!root)
    return refuse(call, root.error());
  const control_tree& control = root->control();
  const result<> done = control.command("ctl", verb_of(wanted.mode));
  if (!done && done.error().message().contains("does not support checks")) {
    complain(call, done.error().message());
    return check_status::unsupported;
  }
  const result<value> last =
      done ? read_json(control, "last-check.json") : result<value>(fail(done.error()));
  if (!last)
    return refuse(call, last.error());
  const check_result found = parse_check(*last);
  print_findings(*last);
  if (wanted.is_json) {
    print(render_check_json(found, text_of(*last, "filename"), text_of(*last, "format")));
  } else if (!wanted.is_quiet) {
    if (found.leaks_fixed != 0 || found.corruptions_fixed != 0)
      print(render_repair(found));
    print(render_check(found));
  }
  if (found.check_errors != 0) {
    complain(call, "Check failed");
    return check_status::failed;
  }
  return check_status::of(found);
}

// --- commit ------------------------------------------------------------------------------------

int commit_over_mount(const command_call& call, const result<mounted_root>& root,
                      u64 bytes_per_second, bool is_quiet) {
  if (!root)
    return refuse(call, root.error());
  const std::string speed =
      bytes_per_second == 0 ? std::string() : fmt::format(" speed={}", bytes_per_second);
  const result<> done = root->control().command("ctl", "commit" + speed);
  if (!done)
    return refuse(call, done.error());
  if (!is_quiet)
    print("Image committed.\n");
  return 0;
}

} // namespace bgfs
