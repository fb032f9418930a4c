// SPDX-License-Identifier: MIT
// What the image verbs have in common: the options that all of them take, and the way from a parsed
// command line to a session that has ended, in good order also when it is interrupted.
#pragma once

#include "config/commands/image_session.h"

namespace bgfs {

struct session_options {
  allowed_references allowed;
  std::vector<std::string> objects; // of --object, which are wiped when they were read
  // SIGINT, SIGTERM and SIGHUP cancel what runs, so that it puts back or leaves whole what it was
  // making and says so; a second one ends the process at once. False: they do so the first time.
  bool ends_in_order = false;
};

// --object, --allow-references and --allow-raw-references.
void add_session_options(arguments& known, session_options& into);
// --object alone, where no header is followed.
void add_object_option(arguments& known, session_options& into);
// -f and --image-opts.
void add_image_options(arguments& known, image_choice& into);
// -U.
void add_share_option(arguments& known, image_choice& into);
// The host cache mode of an image, under the name and letter that the command gives it.
void add_cache_option(arguments& known, char letter, std::string_view name, std::string_view help,
                      host_cache& into);

// -i, and -LETTER for --native. The host's own asynchronous interface is io_uring here, whatever it
// is called.
void add_aio_options(arguments& known, char native_letter, std::string_view native_name,
                     image_choice& into);

// The image that is the only operand. False: there is not one, which has been said.
[[nodiscard]] bool take_image(const command_call& call, const std::vector<std::string>& operands,
                              image_choice& into);

// Runs the task to its end and says what went wrong: the usual body of a command. Returns the exit
// status; after an interruption the process ends by the signal instead, as callers expect.
int run_session(const command_call& call, session_options given,
                const std::function<task<void>(command_session&)>& body);

} // namespace bgfs
