// SPDX-License-Identifier: MIT
#include "config/commands/progress.h"

#include "graph/base/value.h"

#include <cstdio>
#include <unistd.h>

namespace bgfs {

namespace {

constexpr double step_percent = 1; // fewer lines than this would look stuck, more would cost time
constexpr auto step_time = std::chrono::seconds(1);      // for programs: it is still alive
constexpr auto moment = std::chrono::milliseconds(1000); // after which people wonder

// Who has asked for nothing is shown something on a terminal only.
progress_form settle(progress_form form) {
  return form == progress_form::when_long && ::isatty(STDERR_FILENO) == 0 ? progress_form::none
                                                                          : form;
}

} // namespace

void add_progress_option(arguments& known, progress_form& into) {
  known.optional_value('p', "progress", "FORM",
                       "show how far it is: bar (as if not given), or json, a line at a time on "
                       "standard error",
                       [&into](const std::string& form) -> result<> {
                         if (form.empty() || form == "bar")
                           into = progress_form::bar;
                         else if (form == "json")
                           into = progress_form::json;
                         else
                           return fail(error_kind::invalid_argument,
                                       "the form is one of bar, json, not '{}'", form);
                         return {};
                       });
}

progress_line::progress_line(progress_form form, std::string_view job, std::string_view unit,
                             command_signals& signals)
    : form_(settle(form)), job_(job), unit_(unit), signals_(signals) {}

void progress_line::report(u64 done, u64 total) {
  const double percent =
      total == 0 ? 100 : 100 * static_cast<double>(done) / static_cast<double>(total);
  if (signals_.take_progress_request() && form_ != progress_form::bar)
    fmt::print(stderr, "    ({:.2f}/100%)\n", percent);
  const bool is_last = done == total && last_percent_ < 100;
  if (form_ == progress_form::none || !is_time(percent, is_last))
    return;
  is_begun_ = true;
  last_percent_ = percent;
  if (form_ == progress_form::json) {
    shown_ = clock::now();
    print_json(done, total);
  } else {
    print_bar(percent);
  }
}

bool progress_line::is_time(double percent, bool is_last) const {
  if (form_ == progress_form::when_long && clock::now() - begun_ < moment)
    return false;
  if (!is_begun_ || is_last || percent >= last_percent_ + step_percent)
    return true;
  return form_ == progress_form::json && clock::now() - shown_ >= step_time;
}

void progress_line::print_bar(double percent) {
  std::FILE* const to = form_ == progress_form::bar ? stdout : stderr;
  fmt::print(to, "    ({:.2f}/100%)\r", percent);
  (void)std::fflush(to);
}

void progress_line::print_json(u64 done, u64 total) const {
  fmt::print(stderr,
             R"({{"job": "{}", "done": {}, "total": {}, "unit": "{}"}})"
             "\n",
             job_, done, total, unit_);
}

void progress_line::end() {
  if (is_begun_ && form_ == progress_form::bar)
    fmt::print("\n");
  if (is_begun_ && form_ == progress_form::when_long)
    fmt::print(stderr, "\r\x1b[K");
  is_begun_ = false;
}

} // namespace bgfs
