// SPDX-License-Identifier: MIT
// nodes/NAME/debug/ of a node that injects faults: its rules, and who waits at which breakpoint.
#include "fuse/views/common.h"
#include "graph/base/text.h"

namespace bgfs {
namespace {

// The directory is there for such nodes alone; the node may have become another since.
result<debuggable*> find_debugger(const view_subject& subject) {
  debuggable* const found = subject.target->is_open() ? subject.target->as_debuggable() : nullptr;
  if (found == nullptr)
    return fail(error_kind::not_found, "{} injects no faults", subject.target->describe());
  return found;
}

task<std::string> render_rules(view_subject subject) {
  const debuggable* const debugger = co_await find_debugger(subject);
  std::string text;
  for (const std::string& rule : debugger->describe_rules())
    text += rule + "\n";
  co_return text;
}

task<std::string> render_debug_state(view_subject subject) {
  const debuggable* const debugger = co_await find_debugger(subject);
  co_return fmt::format("{}\n", debugger->state());
}

std::string lines_of(const std::vector<debug_breakpoint>& all) {
  std::string text;
  for (const debug_breakpoint& b : all)
    add_line(text, b.tag, to_string(b.event));
  return text;
}

task<std::string> render_breakpoints(view_subject subject) {
  const debuggable* const debugger = co_await find_debugger(subject);
  co_return lines_of(debugger->breakpoints());
}

task<std::string> render_suspended(view_subject subject) {
  const debuggable* const debugger = co_await find_debugger(subject);
  co_return lines_of(debugger->suspended());
}

task<std::string> render_events(view_subject) {
  std::string text;
  for (const debug_event_description& e : debug_event_table)
    add_line(text, e.name, e.meaning);
  co_return text;
}

constexpr std::string_view verbs = "break EVENT TAG\nremove_break TAG\nresume TAG\n";

task<std::string> render_verbs(view_subject) {
  co_return std::string(verbs);
}

std::vector<std::string> words_of(const std::string& text) {
  std::vector<std::string> words;
  for (std::size_t at = 0; (at = text.find_first_not_of(" \t", at)) != std::string::npos;) {
    const std::size_t end = std::min(text.find_first_of(" \t", at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

result<> set_breakpoint(debuggable& debugger, const std::string& name, const std::string& tag) {
  const std::optional<debug_event> event = find_debug_event(name);
  if (!event) {
    std::vector<std::string_view> known;
    for (const debug_event_description& e : debug_event_table)
      known.push_back(e.name);
    return fail(error_kind::invalid_argument, "there is no event '{}'{}; 'events' lists them", name,
                did_you_mean(name, known));
  }
  if (debugger.breakpoints().size() >= breakpoints_max)
    return fail(error_kind::no_space, "there are {} breakpoints already; remove some",
                breakpoints_max);
  debugger.set_breakpoint({*event, tag});
  return {};
}

task<void> write_verb(view_subject subject, std::string text) {
  debuggable* const debugger = co_await find_debugger(subject);
  const std::vector<std::string> words = words_of(text);
  if (words.size() == 3 && words[0] == "break") {
    co_await set_breakpoint(*debugger, words[1], words[2]);
  } else if (words.size() == 2 && words[0] == "remove_break") {
    const bool was_kept = debugger->is_suspended(words[1]);
    if (!debugger->remove_breakpoint(words[1]) && !was_kept)
      co_await fail(error_kind::not_found, "there is no breakpoint '{}'", words[1]);
  } else if (words.size() == 2 && words[0] == "resume") {
    if (!debugger->resume(words[1]))
      co_await fail(error_kind::not_found, "no request is suspended as '{}'", words[1]);
  } else {
    co_await fail(error_kind::invalid_argument,
                  "'{}' is no command: write 'break EVENT TAG', 'remove_break TAG' or 'resume TAG'",
                  text);
  }
}

} // namespace

extern constinit const view debug_rules_view{
    .name = "rules", .summary = "which requests fail, and when", .render = render_rules};
extern constinit const view debug_state_view{
    .name = "state", .summary = "a number that rules may ask for", .render = render_debug_state};
extern constinit const view debug_breakpoints_view{.name = "breakpoints",
                                                   .summary =
                                                       "tag: event, of those not reached yet",
                                                   .render = render_breakpoints};
extern constinit const view debug_suspended_view{.name = "suspended",
                                                 .summary =
                                                     "tag: event, of requests that wait there",
                                                 .render = render_suspended};
extern constinit const view debug_events_view{
    .name = "events", .summary = "every event and what it means", .render = render_events};
extern constinit const view debug_ctl_view{.name = "ctl",
                                           .summary =
                                               "break EVENT TAG, remove_break TAG, resume TAG",
                                           .render = render_verbs,
                                           .write = write_verb};

} // namespace bgfs
