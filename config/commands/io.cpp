// SPDX-License-Identifier: MIT
// bgfs io: reads, writes and examines an image by commands, from -c or from standard input.
#include "config/commands/io_session.h"
#include "config/commands/verb_frame.h"

#include "graph/io/offload.h"
#include "graph/io/spawn.h"

#include <iostream>
#include <unistd.h>

namespace bgfs {

namespace {

struct io_arguments {
  image_choice image;
  std::vector<std::string> lines; // of -c
  session_options session;
  std::string cache;
  std::string discard;
  bool is_uncached = false;
  bool is_read_only = false;
  bool is_misaligned = false;
};

std::optional<std::string> next_line() {
  std::string line;
  if (!std::getline(std::cin, line))
    return std::nullopt;
  return line;
}

task<void> run_input(io_session& session) {
  const bool is_terminal = ::isatty(STDIN_FILENO) != 0;
  while (!session.has_ended()) {
    if (is_terminal)
      print("bgfs-io> ");
    (void)std::fflush(stdout);
    // On another thread, so that requests in flight go on while the user thinks.
    std::optional<std::string> line = co_await offload([] { return next_line(); });
    if (!line)
      break;
    co_await session.run_line(*std::move(line));
  }
}

task<void> run_lines(io_session& session, const io_arguments& a) {
  if (!a.image.name.empty()) {
    const bool is_open = co_await session.open_image_of(a.image);
    if (!is_open) {
      session.fail_once();
      co_return;
    }
  }
  if (a.lines.empty())
    co_await run_input(session);
  for (const std::string& line : a.lines) {
    if (session.has_ended())
      break;
    co_await session.run_line(line);
  }
}

constexpr std::size_t misalignment = 16; // bytes; less than any logical block

task<void> run_and_close(io_session& session, const io_arguments& a) {
  const task_context here = co_await current_context();
  session.let_pass_once_cancelled(here.cancel);
  result<> outcome = co_await as_result(run_lines(session, a));
  co_await session.release();
  co_await std::move(outcome);
}

task<void> run(command_session& owner, const io_arguments& a, bool& has_failed) {
  io_session session(owner, a.image, a.is_misaligned ? misalignment : 0);
  co_await run_and_close(session, a);
  has_failed = session.has_failed();
}

void declare(arguments& known, io_arguments& a) {
  known.texts('c', "cmd", "COMMAND", "run this command; may be given again", a.lines);
  add_image_options(known, a.image);
  known.flag('r', "read-only", "do not write", a.is_read_only);
  known.flag('n', "nocache", "bypass the page cache (-t none)", a.is_uncached);
  known.text('t', "cache", "MODE", "how the host caches the image", a.cache);
  known.text('d', "discard", "MODE", "what becomes of discards: unmap (as if not given), ignore",
             a.discard);
  known.flag('U', "force-share", "even while somebody else uses it; needs -r",
             a.image.is_force_shared);
  known.flag('s', "snapshot",
             "write to a temporary overlay, which is gone when the image is closed",
             a.image.is_temporary);
  known.flag('C', "copy-on-read", "keep in the image what is read from its backing files",
             a.image.copies_on_read);
  known.flag('m', "misalign", "use buffers that direct I/O does not take as they are",
             a.is_misaligned);
  add_aio_options(known, 'k', "native-aio", a.image);
  add_session_options(known, a.session);
}

result<> finish(io_arguments& a, const std::vector<std::string>& operands) {
  if (operands.size() > 1)
    return fail(error_kind::invalid_argument, "one image is expected; see 'bgfs io --help'");
  if (!operands.empty())
    a.image.name = operands[0];
  a.image.is_writable = !a.is_read_only;
  a.image.shares_writes = true;
  a.image.discards = a.discard.empty() || a.discard == "unmap" || a.discard == "on";
  if (!a.image.discards && a.discard != "ignore" && a.discard != "off")
    return fail(error_kind::invalid_argument, "option '-d' is one of unmap, ignore, not '{}'",
                a.discard);
  if (a.is_uncached)
    a.image.cache = host_cache::none;
  else
    a.image.cache = host_cache::writethrough; // as scripts expect of a write that has succeeded
  if (!a.cache.empty()) {
    BGFS_TRY(a.image.cache, context(parse_host_cache(a.cache), "option '-t'"));
  }
  return {};
}

} // namespace

int run_io(const command_call& call) {
  io_arguments a;
  arguments known(call.name, "[OPTION]... [FILE]",
                  "Reads, writes and examines an image by commands: those of -c, or lines from\n"
                  "standard input. 'bgfs io -c help' lists them.");
  declare(known, a);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (const result<> ok = finish(a, parsed.operands); !ok) {
    complain(call, ok.error().message());
    return 1;
  }
  bool has_failed = false;
  const int status = run_session(
      call, a.session, [&](command_session& session) { return run(session, a, has_failed); });
  return status != 0 || has_failed ? 1 : 0;
}

} // namespace bgfs
