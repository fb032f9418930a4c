// SPDX-License-Identifier: MIT
// bgfs amend: change how an image is made, where it is.
#include "config/commands/new_image.h"
#include "config/commands/progress.h"
#include "graph/io/spawn.h"

namespace bgfs {

namespace {

struct amend_arguments {
  image_choice image;
  std::vector<std::string> option_lists;
  std::vector<std::string> objects;
  allowed_references allowed;
  bool is_forced = false;
  bool is_progress_shown = false;
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
  progress_line line(a.is_progress_shown && !a.is_quiet);
  result<> done = co_await as_result(session.nodes().amend(
      image.top(), {.given = given,
                    .secrets = session.secrets().get(),
                    .is_forced = a.is_forced,
                    .progress = [&line](u64 now, u64 all) { line.report(now, all); }}));
  line.end();
  co_await context(std::move(done), "'{}'", image.choice().name);
  co_await image.disk().flush();
}

task<void> amend(command_session& session, const amend_arguments& a) {
  co_await with(open(session.nodes(), a.image),
                [&](open_image& image) { return amend_open(image, session, a); });
}

int print_help(const command_call& call, const std::string& format) {
  const driver_type* const type = call.drivers.find(format);
  if (type == nullptr || type->amend_options == nullptr) {
    complain(call,
             fmt::format("there is no format '{}' that can be amended; give one with -f", format));
    return 1;
  }
  print("Supported options:\n" + describe_options(*type->amend_options));
  return 0;
}

void declare(arguments& known, amend_arguments& a) {
  known.texts('o', "options", "OPTIONS", "name=value,... to change; 'help' lists what there is",
              a.option_lists);
  known.text('f', "format", "FORMAT", "the image's format; absent: by its first bytes",
             a.image.format);
  known.flag('p', "progress", "show how far it is", a.is_progress_shown);
  known.flag('q', "quiet", "print nothing", a.is_quiet);
  known.flag(0, "force", "also change what cannot be undone", a.is_forced);
  add_cache_option(known, 't', "cache", "how the host caches the image", a.image.cache);
  known.flag(0, "image-opts", "FILE is a list of options: driver=...,file.filename=...",
             a.image.is_options);
  add_object_option(known, a.objects);
  add_reference_options(known, a.allowed);
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
  if (asks_option_help(a.option_lists))
    return print_help(call, a.image.format);
  if (parsed.operands.size() != 1 || a.option_lists.empty()) {
    complain(call, "-o with what to change, and one image are expected; see 'bgfs amend --help'");
    return 1;
  }
  a.image.name = parsed.operands[0];
  a.image.is_writable = true;
  return run_session(call, a.allowed, std::move(a.objects),
                     [&](command_session& session) { return amend(session, a); });
}

} // namespace bgfs
