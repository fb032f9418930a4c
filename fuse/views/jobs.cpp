// SPDX-License-Identifier: MIT
// .bgfs/jobs/ID/: what a job is doing, and its verbs. Whoever writes waits for nothing but the job,
// and keeps nobody waiting.
#include "fuse/views/common.h"
#include "graph/base/text.h"

namespace bgfs {
namespace {

const job& of(const view_subject& subject) {
  return *subject.subject_job;
}

// --- what it is doing --------------------------------------------------------------------------

task<std::string> render_type(view_subject subject) {
  co_return of(subject).description().type + "\n";
}

task<std::string> render_state(view_subject subject) {
  co_return fmt::format("{}\n", to_string(of(subject).state()));
}

task<std::string> render_done(view_subject subject) {
  co_return fmt::format("{}\n", of(subject).done());
}

task<std::string> render_total(view_subject subject) {
  co_return fmt::format("{}\n", of(subject).total());
}

task<std::string> render_progress(view_subject subject) {
  const u64 total = of(subject).total();
  const double part =
      total == 0 ? 0 : static_cast<double>(of(subject).done()) / static_cast<double>(total);
  co_return fmt::format("{:.2f}\n", 100 * part);
}

task<std::string> render_speed(view_subject subject) {
  co_return fmt::format("{}\n", of(subject).speed());
}

task<std::string> render_error(view_subject subject) {
  const error* const why = of(subject).failure();
  co_return why == nullptr ? std::string() : why->message() + "\n";
}

// --- what it is told to do ---------------------------------------------------------------------

result<> require_one(std::string_view text, std::string_view verb) {
  if (text == "1")
    return {};
  return fail(error_kind::invalid_argument, "write 1 to {} the job, not '{}'", verb, text);
}

task<void> write_speed(view_subject subject, std::string text) {
  const result<u64> speed = parse_size(text);
  if (!speed)
    co_await fail(error_kind::invalid_argument,
                  "'{}' is no speed: write bytes a second, such as 20M, or 0 for no limit", text);
  co_await subject.subject_job->set_speed(*speed);
}

task<void> write_cancel(view_subject subject, std::string text) {
  co_await require_one(text, "cancel");
  const job_pointer which = subject.subject_job;
  co_await which->cancel();
  const result<> ended = co_await as_result(which->ended()); // with what it was cancelled with
  if (!which->is_over())
    co_await ended;
}

task<void> write_pause(view_subject subject, std::string text) {
  co_await require_one(text, "pause");
  const job_pointer which = subject.subject_job;
  co_await which->pause();
  co_await which->settled();
}

task<void> write_resume(view_subject subject, std::string text) {
  co_await require_one(text, "resume");
  co_await subject.subject_job->resume();
}

task<void> write_complete(view_subject subject, std::string text) {
  co_await require_one(text, "complete");
  const job_pointer which = subject.subject_job;
  co_await which->complete();
  co_await which->ended();
}

task<void> write_dismiss(view_subject subject, std::string text) {
  co_await require_one(text, "dismiss");
  co_await subject.subject_job->check(job_verb::dismiss);
  co_await subject.mount.jobs.list().dismiss(of(subject).id());
}

} // namespace

extern constinit const view job_type_view{
    .name = "type", .summary = "commit, check or merge", .render = render_type};
extern constinit const view job_state_view{
    .name = "state",
    .summary = "running, paused, ready (for 'complete'), standby (paused while ready), pending (in "
               "its last step), aborting or concluded",
    .render = render_state};
extern constinit const view job_done_view{
    .name = "done", .summary = "how far it is, in bytes where it copies", .render = render_done};
extern constinit const view job_total_view{
    .name = "total",
    .summary = "how far there is to go; grows with what is written meanwhile",
    .render = render_total};
extern constinit const view job_progress_view{
    .name = "progress", .summary = "the same in percent", .render = render_progress};
extern constinit const view job_speed_view{
    .name = "speed",
    .summary = "bytes a second at most, such as 20M; 0: as fast as it goes",
    .render = render_speed,
    .write = write_speed,
    .changes_graph = true};
extern constinit const view job_cancel_view{
    .name = "cancel",
    .summary = "write 1: it takes back what it has begun; returns when it is over",
    .write = write_cancel,
    .changes_graph = true};
extern constinit const view job_pause_view{
    .name = "pause",
    .summary = "write 1: it rests; returns when none of its requests is under way",
    .write = write_pause,
    .changes_graph = true};
extern constinit const view job_resume_view{.name = "resume",
                                            .summary = "write 1: it goes on after a pause",
                                            .write = write_resume,
                                            .changes_graph = true};
extern constinit const view job_complete_view{
    .name = "complete",
    .summary = "write 1: one that is ready takes its last step; returns when it is over",
    .write = write_complete,
    .changes_graph = true};
extern constinit const view job_dismiss_view{.name = "dismiss",
                                             .summary =
                                                 "write 1: one that has failed is listed no longer",
                                             .write = write_dismiss,
                                             .changes_graph = true};
extern constinit const view job_error_view{
    .name = "error", .summary = "why it has failed; empty: it has not", .render = render_error};

} // namespace bgfs
