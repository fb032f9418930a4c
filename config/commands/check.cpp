// SPDX-License-Identifier: MIT
// bgfs check: look for contradictions in an image, and repair it.
#include "config/commands/option_values.h"
#include "config/commands/over_mount.h"
#include "config/commands/progress.h"
#include "config/commands/verb_frame.h"
#include "config/render_check.h"

namespace bgfs {

namespace {

struct check_options {
  image_choice image;
  check_mode mode = check_mode::report;
  bool is_json = false;
  bool is_quiet = false;
  progress_form progress = progress_form::when_long;
  session_options session;
};

// Findings go to standard error as they are found, whatever the output is.
class printing_sink final : public check_sink {
public:
  printing_sink(progress_form form, command_signals& signals)
      : progress_(form, "check", "steps", signals) {}
  void message(std::string_view line) override {
    progress_.end();
    fmt::print(stderr, "{}\n", line);
  }
  void progress(u64 done, u64 total) override { progress_.report(done, total); }

private:
  progress_line progress_;
};

task<check_result> check_once(command_session& session, checkable& image, check_mode mode,
                              progress_form form) {
  printing_sink sink(form, session.signals());
  const check_result found = co_await image.check(mode, sink);
  co_return found;
}

// After a repair the image is checked again: its outcome is how the image is now, not what was
// done.
task<int> check(command_session& session, const command_call& call, open_image& image,
                const check_options& options) {
  checkable* face = image.top().as_checkable();
  if (face == nullptr) {
    complain(call, "This image format does not support checks");
    co_return check_status::unsupported;
  }
  const bool is_human = !options.is_json && !options.is_quiet;
  const progress_form form = options.is_quiet ? progress_form::none : options.progress;
  check_result found =
      co_await context(check_once(session, *face, options.mode, form), "Check failed");
  const u64 leaks_fixed = found.leaks_fixed;
  const u64 corruptions_fixed = found.corruptions_fixed;
  if (leaks_fixed != 0 || corruptions_fixed != 0) {
    if (is_human)
      print(render_repair(found));
    found = co_await context(check_once(session, *face, check_mode::report, form), "Check failed");
    found.leaks_fixed = leaks_fixed;
    found.corruptions_fixed = corruptions_fixed;
  }
  if (options.is_json && !options.is_quiet)
    print(render_check_json(found, options.image.name, image.top().type().name));
  else if (is_human)
    print(render_check(found));
  if (found.check_errors != 0)
    co_await fail(error_kind::io, "Check failed");
  co_return check_status::of(found);
}

task<void> run(command_session& session, const command_call& call, const check_options& options,
               int& status) {
  status = co_await with(open(session.nodes(), options.image),
                         [&](open_image& image) { return check(session, call, image, options); });
}

result<> take_repair(const std::string& given, check_options& options) {
  if (given != "leaks" && given != "all")
    return fail(error_kind::invalid_argument, "'{}' is neither 'leaks' nor 'all'", given);
  options.mode = given == "all" ? check_mode::repair_all : check_mode::repair_leaks;
  options.image.is_writable = true;
  options.session.ends_in_order = true;
  return {};
}

} // namespace

int run_check(const command_call& call) {
  check_options options;
  options.image.needs_backing = false;
  options.image.is_for_check = true;
  arguments known(
      call.name, "[OPTION]... FILE",
      "Looks for contradictions in an image. Ends with 0 if there are none, 2 if data "
      "are or may be lost,\n3 if only space is, 1 if it could not be checked, 63 if its "
      "format has no checks.");
  add_image_options(known, options.image);
  known.value(0, "output", "human|json", "for people, or for programs",
              [&](const std::string& v) { return take_output_format(v, options.is_json); });
  known.value('r', "repair", "leaks|all",
              "put right what is wrong: only clusters that nobody uses, or everything",
              [&](const std::string& v) { return take_repair(v, options); });
  add_cache_option(known, 'T', "source-cache", "how the host caches the image",
                   options.image.cache);
  known.flag('q', "quiet", "print nothing but what is wrong", options.is_quiet);
  add_progress_option(known, options.progress);
  add_share_option(known, options.image);
  add_session_options(known, options.session);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (!take_image(call, parsed.operands, options.image))
    return check_status::failed;
  if (options.image.is_force_shared && options.mode != check_mode::report) {
    complain(call, "-U looks at an image that others write; it cannot be repaired meanwhile");
    return check_status::failed;
  }
  if (const auto served = find_mounted_root(options.image))
    return check_over_mount(
        call, *served,
        {.mode = options.mode, .is_json = options.is_json, .is_quiet = options.is_quiet});
  int status = check_status::sound;
  const int outcome = run_session(call, options.session, [&](command_session& session) {
    return run(session, call, options, status);
  });
  return outcome != 0 ? outcome : status;
}

} // namespace bgfs
