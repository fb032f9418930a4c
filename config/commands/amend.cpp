// SPDX-License-Identifier: MIT
// bgfs amend: change how an image is made, where it is.
#include "config/commands/new_image.h"
#include "config/commands/progress.h"
#include "config/commands/verb_frame.h"
#include "graph/io/spawn.h"

namespace bgfs {

namespace {

struct amend_arguments {
  image_choice image;
  std::vector<std::string> option_lists;
  session_options session;
  bool is_forced = false;
  progress_form progress = progress_form::when_long;
  bool is_quiet = false; // no progress, whatever asks for it
};

result<options> read_options(const node& image, const std::vector<std::string>& lists) {
  BGFS_TRY(const value given, merge_option_lists(lists));
  const option_schema* const schemas[] = {image.type().amend_options};
  return validate_options(schemas, given);
}

task<void> amend_open(open_image& image, command_session& session, const amend_arguments& a) {
  if (image.top().type().amend_options == nullptr)
    co_await fail(error_kind::unsupported, "images of format '{}' cannot be amended",
                  image.top().type().name);
  const options given = co_await read_options(image.top(), a.option_lists);
  progress_line line(a.is_quiet ? progress_form::none : a.progress, "amend", "steps",
                     session.signals());
  result<> done = co_await as_result(session.nodes().amend(
      image.top(), {.given = given,
                    .secrets = session.secrets().get(),
                    .is_forced = a.is_forced,
                    .progress = [&line](u64 now, u64 all) { line.report(now, all); }}));
  co_await context(std::move(done), "'{}'", image.choice().name);
  co_await image.disk().flush();
}

task<void> amend(command_session& session, const amend_arguments& a) {
  co_await with(open(session.nodes(), a.image),
                [&](open_image& image) { return amend_open(image, session, a); });
}

// Of the format that was given, or is that of the image.
result<const driver_type*> find_amendable(const command_call& call, const image_choice& image) {
  std::string format = image.format;
  if (!image.name.empty()) {
    BGFS_TRY(const value definition, define_image(image, call.drivers));
    const value* const driver = definition.find("driver");
    if (driver != nullptr && driver->as_text() != nullptr)
      format = *driver->as_text();
  }
  const driver_type* const type = call.drivers.find(format);
  if (type == nullptr || type->amend_options == nullptr)
    return fail(error_kind::invalid_argument,
                "there is no format '{}' that can be amended; give one with -f", format);
  return type;
}

int print_help(const command_call& call, const image_choice& image) {
  const result<const driver_type*> type = find_amendable(call, image);
  if (!type) {
    complain(call, type.error().message());
    return 1;
  }
  print("Supported options:\n" + describe_options(*(*type)->amend_options));
  return 0;
}

void declare(arguments& known, amend_arguments& a) {
  known.texts('o', "options", "OPTIONS", "name=value,... to change; 'help' lists what there is",
              a.option_lists);
  add_image_options(known, a.image);
  add_progress_option(known, a.progress);
  known.flag('q', "quiet", "print nothing", a.is_quiet);
  known.flag(0, "force", "also change what cannot be undone", a.is_forced);
  add_cache_option(known, 't', "cache", "how the host caches the image", a.image.cache);
  add_session_options(known, a.session);
}

} // namespace

int run_amend(const command_call& call) {
  amend_arguments a;
  arguments known(call.name, "[OPTION]... -o OPTIONS FILE",
                  "Changes how an image is made, where it is: its version, the width of its\n"
                  "refcounts, its length and more; of encrypted images, the keys that open it.");
  declare(known, a);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (asks_option_help(a.option_lists)) {
    if (!parsed.operands.empty())
      a.image.name = parsed.operands[0];
    return print_help(call, a.image);
  }
  if (parsed.operands.size() != 1 || a.option_lists.empty()) {
    complain(call, "-o with what to change, and one image are expected; see 'bgfs amend --help'");
    return 1;
  }
  a.image.name = parsed.operands[0];
  a.image.is_writable = true;
  a.session.ends_in_order = true;
  return run_session(call, a.session, [&](command_session& session) { return amend(session, a); });
}

} // namespace bgfs
