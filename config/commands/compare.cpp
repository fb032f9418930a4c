// SPDX-License-Identifier: MIT
// bgfs compare: whether two images show the same disk.
#include "graph/jobs/compare.h"
#include "config/commands/progress.h"
#include "config/commands/verb_frame.h"

namespace bgfs {

namespace {

// What scripts know the outcomes by.
constexpr int status_same = 0;
constexpr int status_different = 1;
constexpr int status_failed = 2;
constexpr int status_unknown = 3;
constexpr int status_unreadable = 4;

struct compare_arguments {
  image_choice images[2];
  session_options session;
  std::string cache = "writeback";
  bool is_options = false;
  bool is_force_shared = false;
  bool is_strict = false;
  progress_form progress = progress_form::when_long;
  bool is_quiet = false;
};

class printed_comparison {
public:
  printed_comparison(const command_call& call, const compare_arguments& a) : call_(call), a_(a) {}

  task<int> run(command_session& session, open_image& first, open_image& second) {
    const bool has_other_length = sectors_of(first) != sectors_of(second);
    if (a_.is_strict && has_other_length)
      co_return say(status_different, "Strict mode: Image size mismatch!\n");
    progress_line line(a_.is_quiet ? progress_form::none : a_.progress, "compare", "bytes",
                       session.signals());
    const result<comparison> compared = co_await as_result(compare_disks(
        session.home(), {.disks = {&first.disk(), &second.disk()},
                         .is_strict = a_.is_strict,
                         .progress = [&line](u64 done, u64 all) { line.report(done, all); }}));
    line.end();
    if (!compared)
      co_await fail(compared.error());
    const u64 common = std::min(sectors_of(first), sectors_of(second)) * compare_unit;
    const bool is_beyond = compared->finding == compare_finding::same || compared->offset >= common;
    if (has_other_length && is_beyond)
      say(0, "Warning: Image size mismatch!\n");
    co_return conclude(*compared);
  }

private:
  static u64 sectors_of(const open_image& image) {
    return divide_up(image.top().length(), compare_unit);
  }

  int say(int status, std::string_view text) const {
    if (!a_.is_quiet)
      print(text);
    return status;
  }

  [[nodiscard]] int conclude(const comparison& c) const {
    switch (c.finding) {
    case compare_finding::same:
      return say(status_same, "Images are identical.\n");
    case compare_finding::content_differs:
      return say(status_different, fmt::format("Content mismatch at offset {}!\n", c.offset));
    case compare_finding::status_differs:
      return say(status_different,
                 fmt::format("Strict mode: Offset {} block status mismatch!\n", c.offset));
    case compare_finding::status_unknown:
      complain(call_, fmt::format("'{}': what is stored at offset {} cannot be found out: {}",
                                  a_.images[c.disk].name, c.offset, c.why->message()));
      return status_unknown;
    case compare_finding::unreadable:
      complain(call_, fmt::format("'{}': the data at offset {} cannot be read: {}",
                                  a_.images[c.disk].name, c.offset, c.why->message()));
      return status_unreadable;
    }
    return status_failed;
  }

  const command_call& call_;
  const compare_arguments& a_;
};

task<int> compare_with(command_session& session, printed_comparison& printed, open_image& first,
                       const image_choice& second) {
  return with(open(session.nodes(), second),
              [&](open_image& other) { return printed.run(session, first, other); });
}

task<void> compare(command_session& session, const command_call& call, const compare_arguments& a,
                   int& status) {
  printed_comparison printed(call, a);
  status = co_await with(open(session.nodes(), a.images[0]), [&](open_image& first) {
    return compare_with(session, printed, first, a.images[1]);
  });
}

void declare(arguments& known, compare_arguments& a) {
  known.text('f', "a-format", "FORMAT", "the format of FILE1; absent: by its first bytes",
             a.images[0].format);
  known.text('F', "b-format", "FORMAT", "the format of FILE2; absent: by its first bytes",
             a.images[1].format);
  known.flag('s', "strict",
             "lengths, and what is stored as data, as zeroes or not at all, have to be the same",
             a.is_strict);
  add_progress_option(known, a.progress);
  known.flag('q', "quiet", "print nothing: the exit status tells", a.is_quiet);
  known.text('T', "source-cache", "MODE", "how the host caches the images", a.cache);
  known.flag('U', "force-share", "even while somebody else is writing them", a.is_force_shared);
  known.flag(0, "image-opts", "both are lists of options: driver=...,file.filename=...",
             a.is_options);
  add_session_options(known, a.session);
}

} // namespace

int run_compare(const command_call& call) {
  compare_arguments a;
  arguments known(
      call.name, "[OPTION]... FILE1 FILE2",
      "Compares what two images show. Ends with 0 if it is the same, 1 if it differs, 2 "
      "if one could\nnot be opened, 3 if what is stored could not be found out, 4 if "
      "data could not be read.");
  declare(known, a);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (parsed.operands.size() != 2) {
    complain(call, "two images are expected; see 'bgfs compare --help'");
    return 1;
  }
  const result<host_cache> cache = parse_host_cache(a.cache);
  if (!cache) {
    complain(call, "option '-T': " + cache.error().message());
    return status_failed;
  }
  for (std::size_t i = 0; i < 2; i++) {
    a.images[i].name = parsed.operands[i];
    a.images[i].is_options = a.is_options;
    a.images[i].is_force_shared = a.is_force_shared;
    a.images[i].cache = *cache;
  }
  a.session.ends_in_order = true; // for SIGUSR1
  int status = status_same;
  const int outcome = run_session(
      call, a.session, [&](command_session& session) { return compare(session, call, a, status); });
  return outcome != 0 ? status_failed : status;
}

} // namespace bgfs
