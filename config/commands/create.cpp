// SPDX-License-Identifier: MIT
// bgfs create: make a new image.
#include "config/commands/new_image.h"
#include "config/commands/option_values.h"
#include "config/commands/verb_frame.h"
#include "graph/base/text.h"

namespace bgfs {

namespace {

struct create_options {
  new_image_request image;
  bool is_quiet = false;
  session_options session;
};

task<void> create(command_session& session, const create_options& options) {
  prepared_image prepared = co_await prepare_new_image(session, options.image);
  if (!options.is_quiet)
    print(prepared.announcement);
  co_await context(create_image(session.nodes(), std::move(prepared.job)), "cannot create '{}'",
                   options.image.filename);
}

} // namespace

int run_create(const command_call& call) {
  create_options options;
  new_image_request& image = options.image;
  arguments known(call.name, "[OPTION]... FILE [SIZE]",
                  "Makes a new image. A file that is there already is replaced.");
  known.text('f', "format", "FORMAT", "the format of the new image; raw if not given",
             image.format);
  known.texts('o', "options", "OPTIONS", "name=value,... of the format; 'help' lists what it takes",
              image.option_lists);
  known.text('b', "backing", "FILE", "what it shows where it holds nothing itself", image.backing);
  known.text('F', "backing-format", "FORMAT", "the format of the backing file",
             image.backing_format);
  known.flag('u', "backing-unsafe", "do not open the backing file; SIZE must be given",
             image.is_backing_unchecked);
  known.flag('q', "quiet", "print nothing", options.is_quiet);
  add_object_option(known, options.session);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  const auto& operands = parsed.operands;
  if (asks_option_help(image.option_lists)) {
    const auto text =
        describe_create_options(call.drivers, image.format, operands.empty() ? "" : operands[0]);
    if (text)
      print(*text);
    else
      complain(call, text.error().message());
    return text ? 0 : 1;
  }
  if (operands.empty() || operands.size() > 2) {
    complain(call, "one file name and perhaps a size are expected; see 'bgfs create --help'");
    return 1;
  }
  image.filename = operands[0];
  options.session.ends_in_order = true;
  if (operands.size() == 2) {
    if (const auto ok = take_size(operands[1], image.length.emplace()); !ok) {
      complain(call, ok.error().message());
      return 1;
    }
  }
  return run_session(call, options.session,
                     [&](command_session& session) { return create(session, options); });
}

} // namespace bgfs
