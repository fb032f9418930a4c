// SPDX-License-Identifier: MIT
#include "config/commands/verb_frame.h"

#include "config/secrets.h"

namespace bgfs {

void add_object_option(arguments& known, session_options& into) {
  known.texts(0, "object", "OBJECT",
              "secret,id=ID,file=FILE: a secret that options name by its id; also data=, env=, "
              "fd=, and format=base64",
              into.objects);
}

void add_session_options(arguments& known, session_options& into) {
  add_object_option(known, into);
  known.texts(0, "allow-references", "DIR",
              "let image headers name files below DIR; their own directory is always allowed",
              into.allowed.directories);
  known.texts(0, "allow-raw-references", "DIR",
              "let image headers name files below DIR as raw images, too",
              into.allowed.raw_directories);
}

void add_image_options(arguments& known, image_choice& into) {
  known.text('f', "format", "FORMAT", "the image's format; absent: by its first bytes",
             into.format);
  known.flag(0, "image-opts", "FILE is a list of options: driver=...,file.filename=...",
             into.is_options);
}

void add_share_option(arguments& known, image_choice& into) {
  known.flag('U', "force-share", "even while somebody else is writing it", into.is_force_shared);
}

void add_cache_option(arguments& known, char letter, std::string_view name, std::string_view help,
                      host_cache& into) {
  known.value(letter, name, "MODE", help, [&into](const std::string& given) -> result<> {
    BGFS_TRY(into, parse_host_cache(given));
    return {};
  });
}

void add_aio_options(arguments& known, char native_letter, std::string_view native_name,
                     image_choice& into) {
  known.value('i', "aio", "MODE",
              "how files are read and written: threads, io_uring (or native, the same)",
              [&into](const std::string& given) -> result<> {
                if (given != "threads" && given != "io_uring" && given != "native")
                  return fail(error_kind::invalid_argument,
                              "'{}' is none of threads, io_uring, native", given);
                into.aio = given == "native" ? "io_uring" : given;
                return {};
              });
  known.action(native_letter, native_name, "the same as -i io_uring",
               [&into] { into.aio = "io_uring"; });
}

bool take_image(const command_call& call, const std::vector<std::string>& operands,
                image_choice& into) {
  if (operands.size() != 1) {
    complain(call, fmt::format("one image is expected; see 'bgfs {} --help'", call.name));
    return false;
  }
  into.name = operands[0];
  return true;
}

int run_session(const command_call& call, session_options given,
                const std::function<task<void>(command_session&)>& body) {
  auto secrets = load_secret_objects(given.objects);
  if (!secrets) {
    complain(call, secrets.error().message());
    return 1;
  }
  command_signals signals(given.ends_in_order);
  auto session = command_session::create(call.drivers, given.allowed, signals, *std::move(secrets));
  if (!session) {
    complain(call, session.error().message());
    return 1;
  }
  const result<> outcome = signals.run((*session)->home(), body(**session));
  if (!outcome)
    complain(call, outcome.error().message());
  session->reset();
  if (!outcome)
    signals.end_as_asked();
  return outcome ? 0 : 1;
}

} // namespace bgfs
