// SPDX-License-Identifier: MIT
// bgfs rebase: give an overlay another backing file; what it shows stays the same.
#include "graph/jobs/rebase.h"
#include "config/commands/progress.h"
#include "config/commands/verb_frame.h"
#include "config/image_name.h"
#include "graph/base/text.h"
#include "graph/io/file.h"

namespace bgfs {

namespace {

struct rebase_arguments {
  image_choice image;
  image_choice backing; // all but the name
  session_options session;
  std::optional<std::string> name; // -b, as it will stand in the header; empty: none
  std::string format;              // -F
  bool is_unsafe = false;
  bool is_compressed = false;
  progress_form progress = progress_form::when_long;
  bool is_quiet = false;
};

bool has_backing(const rebase_arguments& a) {
  return a.name && !a.name->empty();
}

std::optional<image_reference> reference_of(const rebase_arguments& a) {
  if (!has_backing(a))
    return std::nullopt;
  return image_reference{*a.name, a.format};
}

// What the header will say has to be known before anything is done.
result<> check_backing(const rebase_arguments& a, const registry& drivers,
                       const std::string& path) {
  if (a.format.empty()) {
    const auto found = probe_host_file(path, drivers);
    const std::string looks =
        found && *found != nullptr ? fmt::format(" (it looks like {})", (*found)->name) : "";
    return fail(error_kind::invalid_argument,
                "the backing file '{}' needs its format to be given, with -F{}", *a.name, looks);
  }
  const driver_type* type = drivers.find(a.format);
  if (type == nullptr || type->kind == driver_kind::filter)
    return fail(error_kind::invalid_argument, "there is no format '{}' for the backing file{}",
                a.format, did_you_mean(a.format, drivers.names()));
  return {};
}

class rebase_command {
public:
  rebase_command(command_session& session, const rebase_arguments& a) : session_(session), a_(a) {}

  task<void> run(open_image& image) {
    const std::string path = image.top().host_path();
    if (has_backing(a_)) {
      backing_ = backing_name_from(path, *a_.name);
      if (is_same_file(backing_, path))
        co_await fail(error_kind::invalid_argument, "'{}' cannot be its own backing file",
                      a_.image.name);
      co_await check_backing(a_, session_.drivers(), backing_);
    }
    if (a_.is_unsafe) {
      co_await context(name_backing(image.top(), reference_of(a_)), "'{}'", a_.image.name);
    } else if (has_backing(a_)) {
      image_choice choice = a_.backing;
      choice.name = backing_;
      co_await context(with(open(session_.nodes(), choice),
                            [&](open_image& below) { return copy(image.disk(), &below.disk()); }),
                       "'{}' keeps its backing file and reads as before", a_.image.name);
    } else {
      co_await context(copy(image.disk(), nullptr),
                       "'{}' keeps its backing file and reads as before", a_.image.name);
    }
  }

private:
  task<void> copy(root& overlay, root* below) {
    progress_line line(a_.is_quiet ? progress_form::none : a_.progress, "rebase", "bytes",
                       session_.signals());
    result<> done = co_await as_result(rebase_overlay(
        session_.home(), {.overlay = &overlay,
                          .backing = below,
                          .reference = reference_of(a_),
                          .is_compressed = a_.is_compressed,
                          .progress = [&line](u64 now, u64 all) { line.report(now, all); }}));
    co_await std::move(done);
  }

  command_session& session_;
  const rebase_arguments& a_;
  std::string backing_; // a name that opens it from here
};

task<void> rebase_open(command_session& session, const rebase_arguments& a, open_image& image) {
  rebase_command work(session, a);
  co_await work.run(image);
}

task<void> rebase(command_session& session, const rebase_arguments& a) {
  co_await with(open(session.nodes(), a.image),
                [&](open_image& image) { return rebase_open(session, a, image); });
}

void declare(arguments& known, rebase_arguments& a) {
  add_image_options(known, a.image);
  known.value('b', "backing", "NEW", "the new backing file; '' is none",
              [&a](const std::string& given) -> result<> {
                a.name = given;
                return {};
              });
  known.text('F', "backing-format", "FORMAT", "its format", a.format);
  known.text('B', "", "FORMAT", "the same as -F", a.format);
  known.flag('u', "unsafe",
             "write only the new name: right if both backing files show the same; neither has to "
             "be there",
             a.is_unsafe);
  known.flag('c', "compress", "compress what is written, cluster by cluster (qcow2)",
             a.is_compressed);
  known.flag('U', "force-share", "read the new backing file even while somebody else is writing it",
             a.backing.is_force_shared);
  add_progress_option(known, a.progress);
  known.flag('q', "quiet", "print nothing", a.is_quiet);
  add_cache_option(known, 't', "cache", "how the host caches the image", a.image.cache);
  add_cache_option(known, 'T', "source-cache", "how the host caches the new backing file",
                   a.backing.cache);
  add_session_options(known, a.session);
}

result<> check(const rebase_arguments& a) {
  if (!a.is_unsafe && !a.name)
    return fail(error_kind::invalid_argument,
                "-b with the new backing file ('' for none), or -u, is expected; see 'bgfs rebase "
                "--help'");
  if (a.is_unsafe && a.is_compressed)
    return fail(error_kind::invalid_argument,
                "-u writes no data, so that -c has nothing to compress");
  return {};
}

} // namespace

int run_rebase(const command_call& call) {
  rebase_arguments a;
  arguments known(
      call.name, "[OPTION]... -b NEW [-F FORMAT] FILE",
      "Gives FILE another backing file. What the two backing files differ in is written "
      "into FILE\nbefore, so that it shows what it did.");
  declare(known, a);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (!take_image(call, parsed.operands, a.image))
    return 1;
  if (const result<> ok = check(a); !ok) {
    complain(call, ok.error().message());
    return 1;
  }
  a.image.is_writable = true;
  a.image.needs_backing = !a.is_unsafe;
  a.image.is_info_only = a.is_unsafe;
  a.backing.format = a.format;
  a.session.ends_in_order = true;
  return run_session(call, a.session, [&](command_session& session) { return rebase(session, a); });
}

} // namespace bgfs
