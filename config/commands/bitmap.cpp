// SPDX-License-Identifier: MIT
// bgfs bitmap: persistent dirty bitmaps of an image.
#include "config/commands/over_mount.h"
#include "config/commands/verb_frame.h"
#include "graph/base/text.h"
#include "graph/model/bitmap_change.h"

#include <algorithm>

namespace bgfs {

namespace {

struct bitmap_options {
  image_choice image;
  image_choice source; // -b; no name: the image itself
  session_options session;
  std::vector<asked_action> actions; // in the order given
  std::string bitmap;
  u64 granularity = 0;

  [[nodiscard]] bool asks(bitmap_action what) const {
    return std::ranges::find(actions, what, &asked_action::what) != actions.end();
  }
  // All but removing all of them are about one that is named.
  [[nodiscard]] bool names_one() const {
    return std::ranges::any_of(
        actions, [](const asked_action& a) { return a.what != bitmap_action::remove_all; });
  }
};

bitmap_change change_for(const asked_action& a, const bitmap_options& o, node& image,
                         node& source) {
  using kind = bitmap_change::kind;
  bitmap_change c{.where = &image, .name = o.bitmap};
  switch (a.what) {
  case bitmap_action::add:
    c.what = kind::add;
    c.granularity = o.granularity;
    c.is_persistent = true;
    break;
  case bitmap_action::remove:
  case bitmap_action::remove_all:
    c.what = kind::remove;
    break;
  case bitmap_action::clear:
    c.what = kind::clear;
    break;
  case bitmap_action::enable:
    c.what = kind::enable;
    break;
  case bitmap_action::disable:
    c.what = kind::disable;
    break;
  case bitmap_action::merge:
    c.what = kind::merge;
    c.source = &source;
    c.source_name = a.source;
    break;
  }
  return c;
}

// Those that are there when the action's turn comes.
std::vector<std::string> names_after(const node& image, const std::vector<bitmap_change>& before) {
  std::vector<std::string> names;
  for (const auto& b : image.bitmaps().all())
    names.push_back(b->name());
  for (const bitmap_change& c : before) {
    if (c.what == bitmap_change::kind::add)
      names.push_back(c.name);
    if (c.what == bitmap_change::kind::remove)
      std::erase(names, c.name);
  }
  return names;
}

// All of them, or none: a script that fails half-way finds the image as it was.
task<void> change(command_session& session, const bitmap_options& o, node& image, node& source) {
  std::vector<bitmap_change> changes;
  for (const asked_action& a : o.actions) {
    if (a.what != bitmap_action::remove_all) {
      changes.push_back(change_for(a, o, image, source));
      continue;
    }
    for (std::string& name : names_after(image, changes))
      changes.push_back({.what = bitmap_change::kind::remove, .where = &image, .name = name});
  }
  co_await session.nodes().change_bitmaps(std::move(changes));
}

task<void> change_with_source(command_session& session, const bitmap_options& o, node& image) {
  if (o.source.name.empty()) {
    co_await change(session, o, image, image);
    co_return;
  }
  co_await with(open(session.nodes(), o.source),
                [&](open_image& source) { return change(session, o, image, source.top()); });
}

task<void> run_actions(command_session& session, const bitmap_options& o) {
  co_await with(open(session.nodes(), o.image), [&](open_image& image) {
    return change_with_source(session, o, *image.top().skip_filters());
  });
}

struct action_flag {
  std::string_view name;
  bitmap_action action;
  std::string_view help;
};
constexpr action_flag action_flags[] = {
    {"add", bitmap_action::add, "add the bitmap; it records from now on"},
    {"remove", bitmap_action::remove, "remove the bitmap"},
    {"remove-all", bitmap_action::remove_all, "remove all bitmaps; no BITMAP is given"},
    {"clear", bitmap_action::clear, "forget what has changed"},
    {"enable", bitmap_action::enable, "record changes"},
    {"disable", bitmap_action::disable, "record no more"},
};

void declare(arguments& known, bitmap_options& o) {
  for (const action_flag& a : action_flags)
    known.action(0, a.name, a.help, [&o, what = a.action] { o.actions.push_back({what}); });
  known.value(0, "merge", "SOURCE", "add the bits of bitmap SOURCE",
              [&o](const std::string& source) -> result<> {
                o.actions.push_back({bitmap_action::merge, source});
                return {};
              });
  known.value('g', "granularity", "SIZE",
              "with --add: bytes that a bit stands for, a power of two from 512 to 2G; absent: the "
              "cluster size, between 4K and 64K",
              [&o](const std::string& text) -> result<> {
                BGFS_TRY(o.granularity, parse_size(text));
                return check_bitmap_granularity(o.granularity);
              });
  known.text('b', "source-file", "FILE", "with --merge: the image that has SOURCE; absent: FILE",
             o.source.name);
  known.text('F', "source-format", "FORMAT", "its format; absent: by its first bytes",
             o.source.format);
  add_image_options(known, o.image);
  add_session_options(known, o.session);
}

result<> check(const bitmap_options& o, const std::vector<std::string>& operands) {
  if (o.actions.empty())
    return fail(error_kind::invalid_argument,
                "at least one of --add, --remove, --remove-all, --clear, --enable, --disable and "
                "--merge is expected; see 'bgfs bitmap --help'");
  if (o.granularity != 0 && !o.asks(bitmap_action::add))
    return fail(error_kind::invalid_argument, "-g is only for --add");
  if (!o.source.name.empty() && !o.asks(bitmap_action::merge))
    return fail(error_kind::invalid_argument, "-b is only for --merge");
  if (!o.source.format.empty() && o.source.name.empty())
    return fail(error_kind::invalid_argument, "-F is only for -b");
  if (operands.size() != (o.names_one() ? 2U : 1U))
    return fail(error_kind::invalid_argument, "{} expected; see 'bgfs bitmap --help'",
                o.names_one() ? "one image and the name of a bitmap are" : "one image is");
  return {};
}

} // namespace

int run_bitmap(const command_call& call) {
  bitmap_options o;
  arguments known(
      call.name, "ACTION... [OPTION]... FILE BITMAP",
      "Changes the persistent bitmaps of an image, which tell what was written. Actions "
      "are carried\nout in the order given, all of them or none; over a mount each by itself.");
  declare(known, o);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (const result<> ok = check(o, parsed.operands); !ok) {
    complain(call, ok.error().message());
    return 1;
  }
  o.image.name = parsed.operands[0];
  o.session.ends_in_order = true;
  if (o.names_one())
    o.bitmap = parsed.operands[1];
  if (const auto served = find_mounted_root(o.image))
    return bitmap_over_mount(call, *served,
                             {.actions = o.actions,
                              .bitmap = o.bitmap,
                              .granularity = o.granularity,
                              .source_file = o.source.name});
  o.image.is_writable = true;
  o.image.needs_backing = false; // bitmaps tell of this layer alone
  o.source.needs_backing = false;
  return run_session(call, o.session,
                     [&](command_session& session) { return run_actions(session, o); });
}

} // namespace bgfs
