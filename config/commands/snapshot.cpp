// SPDX-License-Identifier: MIT
// bgfs snapshot: internal snapshots of an image.
#include "config/commands/over_mount.h"
#include "config/commands/verb_frame.h"
#include "config/snapshot_text.h"

#include <algorithm>
#include <chrono>
#include <filesystem>

namespace bgfs {

namespace {

struct snapshot_options {
  image_choice image;
  session_options session;
  asked_snapshot_action action;
  unsigned actions = 0; // given
  bool is_quiet = false;
};

new_snapshot named_now(const std::string& name) {
  using namespace std::chrono;
  const auto now = system_clock::now().time_since_epoch();
  const auto whole = duration_cast<seconds>(now);
  return {.name = name,
          .date_seconds = static_cast<u32>(whole.count()),
          .date_nanoseconds = static_cast<u32>(duration_cast<nanoseconds>(now - whole).count())};
}

task<void> list(command_session& session, open_image& image) {
  const result<std::vector<snapshot_info>> all = session.nodes().snapshots(image.top());
  if (all && !all->empty()) // a format without snapshots has none, for whoever only looks
    print(render_snapshots(snapshots_value(*all)));
  co_return;
}

result<> require_new(const std::vector<snapshot_info>& all, const std::string& name) {
  const auto same = std::ranges::find(all, name, &snapshot_info::name);
  if (same == all.end())
    return {};
  return fail(error_kind::invalid_argument, "there is already a snapshot '{}' (id {})", name,
              same->id);
}

task<void> change(command_session& session, open_image& image, const snapshot_options& o) {
  graph& nodes = session.nodes();
  const std::vector<snapshot_info> all = co_await nodes.snapshots(image.top());
  if (o.action.what == snapshot_action::create) {
    (void)co_await nodes.create_snapshot(image.top(), named_now(o.action.which));
    co_return;
  }
  snapshot_key key =
      co_await choose_snapshot(all, o.action.which, o.action.what == snapshot_action::apply);
  if (o.action.what == snapshot_action::apply) {
    co_await nodes.revert_to_snapshot(image.top(), std::move(key));
  } else if (o.action.what == snapshot_action::rename) {
    co_await require_new(all, o.action.new_name);
    co_await nodes.rename_snapshot(image.top(), std::move(key), o.action.new_name);
  } else {
    co_await nodes.delete_snapshot(image.top(), std::move(key));
  }
}

task<void> run_on_image(command_session& session, open_image& image, const snapshot_options& o) {
  if (o.action.what == snapshot_action::list)
    return list(session, image);
  return change(session, image, o);
}

task<void> run_action(command_session& session, const snapshot_options& o) {
  image_choice choice = o.image;
  choice.is_writable = o.action.what != snapshot_action::list;
  choice.shares_writes = true; // with ourselves: each change takes what it needs
  choice.discards = true;
  choice.needs_backing = false; // nothing that is done here looks below the image,
  choice.is_info_only = true;   // or at what the disk holds: tables and counts are all
  co_await with(open(session.nodes(), choice),
                [&](open_image& image) { return run_on_image(session, image, o); });
}

struct action_option {
  char letter;
  std::string_view name;
  std::string_view placeholder;
  snapshot_action action;
  std::string_view help;
};
constexpr action_option action_options[] = {
    {'c', "create", "NAME", snapshot_action::create, "keep what the disk is now"},
    {'a', "apply", "SNAPSHOT", snapshot_action::apply,
     "make the disk what it was; what was written since is lost"},
    {'d', "delete", "SNAPSHOT", snapshot_action::remove, "delete a snapshot"},
    {0, "rename", "SNAPSHOT", snapshot_action::rename, "call it by the name that --to gives"},
};

void declare_actions(arguments& known, snapshot_options& o) {
  for (const action_option& a : action_options)
    known.value(a.letter, a.name, a.placeholder, a.help,
                [&o, action = a.action](const std::string& which) -> result<> {
                  o.action.what = action;
                  o.action.which = which;
                  o.actions++;
                  return {};
                });
}

result<> check(const snapshot_options& o, bool lists, const std::vector<std::string>& operands) {
  if (o.actions + (lists ? 1 : 0) > 1)
    return fail(error_kind::invalid_argument,
                "only one of -l, -c, -a, -d and --rename can be done at once");
  if ((o.action.what == snapshot_action::rename) != !o.action.new_name.empty())
    return fail(error_kind::invalid_argument, "--rename and --to go together");
  if (operands.size() != 1)
    return fail(error_kind::invalid_argument, "one image is expected; see 'bgfs snapshot --help'");
  if (o.actions != 0 && o.image.is_force_shared)
    return fail(error_kind::invalid_argument,
                "-U is for looking at images that somebody else is writing; those cannot be "
                "changed beside him");
  return {};
}

// A directory is no image, so it can only be meant as a mount.
bool is_mount_directory(const image_choice& choice) {
  std::error_code ignored;
  return !choice.is_options && choice.format.empty() &&
         std::filesystem::is_directory(choice.name, ignored);
}

} // namespace

int run_snapshot(const command_call& call) {
  snapshot_options o;
  bool lists = false;
  arguments known(
      call.name,
      "[-l | -c NAME | -a SNAPSHOT | -d SNAPSHOT | --rename SNAPSHOT --to NAME] [OPTION]... FILE",
      "Lists the internal snapshots of an image, makes one, makes the disk what it was in one,\n"
      "deletes one or gives it another name. SNAPSHOT is a name, an id, or snapshot.id=ID, "
      "snapshot.name=NAME or both.\nWhere FILE is the directory of a mount: those of all "
      "its roots, each made in one instant.");
  known.flag('l', "list", "list them, which is done when nothing else is asked for", lists);
  declare_actions(known, o);
  known.text(0, "to", "NAME", "the new name of --rename", o.action.new_name);
  add_image_options(known, o.image);
  known.flag('U', "force-share", "with -l: even while somebody else is writing it",
             o.image.is_force_shared);
  known.flag('q', "quiet", "print nothing but the list", o.is_quiet);
  add_session_options(known, o.session);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (const result<> ok = check(o, lists, parsed.operands); !ok) {
    complain(call, ok.error().message());
    return 1;
  }
  o.image.name = parsed.operands[0];
  if (const auto served = find_mounted_root(o.image))
    return snapshot_over_mount(call, *served, o.action);
  if (is_mount_directory(o.image))
    return group_snapshot_over_mount(call, o.image.name, o.action);
  o.session.ends_in_order = true;
  return run_session(call, o.session,
                     [&](command_session& session) { return run_action(session, o); });
}

} // namespace bgfs
