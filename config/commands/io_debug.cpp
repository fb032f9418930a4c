// SPDX-License-Identifier: MIT
// The commands of `bgfs io` about breakpoints, which a blkdebug node below the image keeps.
#include "config/commands/io_session.h"

#include "graph/io/sleep.h"

#include <cerrno>

namespace bgfs {
namespace {

// Says in the words that scripts know, and to people what to do; returns false.
bool refuse(std::string_view what, int os_error, std::string why) {
  return report_refusal(what, error::from_errno(os_error, std::move(why)));
}

error no_debugger(const io_session& session) {
  return error::from_errno(ENOTSUP, fmt::format("nothing below {} takes breakpoints; open it as "
                                                "blkdebug::IMAGE",
                                                session.image().top().describe()));
}

} // namespace

void suspension_printer::emit(std::string_view type, value data) {
  const value* tag = data.find("tag");
  if (tag == nullptr || tag->as_text() == nullptr)
    return;
  if (type == "BLKDEBUG_SUSPENDED")
    print(fmt::format("blkdebug: Suspended request '{}'\n", *tag->as_text()));
  if (type == "BLKDEBUG_RESUMED")
    print(fmt::format("blkdebug: Resuming request '{}'\n", *tag->as_text()));
}

task<bool> io_break(io_session& session, std::vector<std::string> words) {
  constexpr std::string_view what = "Could not set breakpoint";
  debuggable* const debugger = session.image().top().find_debuggable();
  if (debugger == nullptr)
    co_return report_refusal(what, no_debugger(session));
  const std::optional<debug_event> event = find_debug_event(words[0]);
  if (!event)
    co_return refuse(what, ENOENT, fmt::format("there is no event '{}'", words[0]));
  debugger->set_breakpoint({*event, words[1]});
  co_return true;
}

task<bool> io_remove_break(io_session& session, std::vector<std::string> words) {
  const std::string what = fmt::format("Could not remove breakpoint {}", words[0]);
  debuggable* const debugger = session.image().top().find_debuggable();
  if (debugger == nullptr)
    co_return report_refusal(what, no_debugger(session));
  if (!debugger->remove_breakpoint(words[0]))
    co_return refuse(what, ENOENT, fmt::format("no breakpoint '{}' is set any more", words[0]));
  co_return true;
}

task<bool> io_resume(io_session& session, std::vector<std::string> words) {
  constexpr std::string_view what = "Could not resume request";
  debuggable* const debugger = session.image().top().find_debuggable();
  if (debugger == nullptr)
    co_return report_refusal(what, no_debugger(session));
  if (!debugger->resume(words[0]))
    co_return refuse(what, ENOENT, fmt::format("no request is suspended as '{}'", words[0]));
  co_return true;
}

// Looks again and again, as nothing else is to be done meanwhile. Not for ever: once no request is
// in flight, none can get there any more.
task<bool> io_wait_break(io_session& session, std::vector<std::string> words) {
  constexpr std::string_view what = "Could not wait for request";
  debuggable* const debugger = session.image().top().find_debuggable();
  if (debugger == nullptr)
    co_return report_refusal(what, no_debugger(session));
  while (!debugger->is_suspended(words[0])) {
    if (session.in_flight().running() == 0)
      co_return refuse(
          what, ENOENT,
          fmt::format("no request is in flight that could reach breakpoint '{}'", words[0]));
    co_await sleep_for(std::chrono::milliseconds(1));
  }
  co_return true;
}

} // namespace bgfs
