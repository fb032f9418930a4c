// SPDX-License-Identifier: MIT
// bgfs commit: give the content of an overlay to the image that it stands on.
#include "graph/jobs/commit.h"
#include "config/commands/commands.h"
#include "config/commands/option_values.h"
#include "config/commands/over_mount.h"
#include "config/commands/progress.h"
#include "config/commands/verb_frame.h"
#include "graph/io/file.h"

namespace bgfs {

namespace {

struct commit_arguments {
  image_choice image;
  session_options session;
  std::string base; // -b; empty: the next one down
  u64 bytes_per_second = 0;
  bool keeps_content = false;
  progress_form progress = progress_form::when_long;
  bool is_quiet = false;
};

// Layers below the image itself, filters left out.
std::vector<node*> layers_below(node& top) {
  std::vector<node*> layers;
  for (const edge* e = top.skip_filters()->backing(); e != nullptr; e = layers.back()->backing())
    layers.push_back(e->child().skip_filters());
  return layers;
}

result<node*> find_base(node& top, const commit_arguments& a) {
  const std::vector<node*> layers = layers_below(top);
  if (layers.empty())
    return fail(error_kind::invalid_argument,
                "'{}' does not have a backing file that its content could go to", a.image.name);
  if (a.base.empty())
    return layers.front();
  std::string paths;
  const node* above = top.skip_filters();
  for (node* n : layers) {
    const std::string path = n->host_path();
    const std::optional<image_reference> named = above->instance().backing_reference();
    if (is_same_file(path, a.base) || (named && named->filename == a.base))
      return n;
    above = n;
    paths += fmt::format("{}'{}'", paths.empty() ? "" : ", ", path);
  }
  return fail(error_kind::not_found, "'{}' is not in the backing chain of '{}', which has {}",
              a.base, a.image.name, paths);
}

task<void> commit_open(command_session& session, open_image& image, const commit_arguments& a) {
  node& top = *image.top().skip_filters();
  node* const base = co_await find_base(top, a);
  if (!a.keeps_content && top.as_emptiable() == nullptr)
    co_await fail(error_kind::unsupported,
                  "'{}' (format '{}') cannot be made empty afterwards; -d leaves it as it is",
                  a.image.name, top.type().name);
  progress_line line(a.is_quiet ? progress_form::none : a.progress, "commit", "bytes",
                     session.signals());
  result<> done = co_await as_result(
      commit_layers({.top = &image.disk(),
                     .base = base,
                     .bytes_per_second = a.bytes_per_second,
                     .progress = [&line](u64 now, u64 all) { line.report(now, all); }}));
  line.end();
  co_await context(std::move(done), "cannot commit '{}', which keeps all its content",
                   a.image.name);
  // If we stop before this has ended, the image holds some of what its base has, too.
  if (!a.keeps_content)
    co_await context(
        top.owner().make_empty(top, graph::emptied::reads_the_same),
        "'{}' has all the content of '{}' now, which cannot be made empty and keeps it",
        base->host_path(), a.image.name);
  co_await image.disk().flush();
}

task<void> commit(command_session& session, const commit_arguments& a) {
  co_await with(open(session.nodes(), a.image),
                [&](open_image& image) { return commit_open(session, image, a); });
  if (!a.is_quiet)
    print("Image committed.\n");
}

void declare(arguments& known, commit_arguments& a) {
  add_image_options(known, a.image);
  known.text('b', "base", "FILE",
             "commit down to this file of the chain; those between are of no use afterwards, and "
             "the image keeps its content",
             a.base);
  known.flag('d', "keep-content", "do not make the image empty afterwards", a.keeps_content);
  known.value('r', "rate-limit", "RATE", "bytes a second that are read and written at most",
              [&a](const std::string& given) { return take_size(given, a.bytes_per_second); });
  add_progress_option(known, a.progress);
  known.flag('q', "quiet", "print nothing", a.is_quiet);
  add_cache_option(known, 't', "cache", "how the host caches the image", a.image.cache);
  add_session_options(known, a.session);
}

} // namespace

int run_commit(const command_call& call) {
  commit_arguments a;
  arguments known(call.name, "[OPTION]... FILE",
                  "Writes what FILE holds into the image that it stands on, and makes FILE empty.");
  declare(known, a);
  const parsed_arguments parsed = parse_arguments(call, known);
  if (parsed.is_over)
    return parsed.status;
  if (!take_image(call, parsed.operands, a.image))
    return 1;
  if (const auto served = find_mounted_root(a.image)) {
    if (!a.base.empty() || a.keeps_content) {
      complain(call,
               fmt::format("-b and -d are not for '{}', which is mounted: its content goes to "
                           "the next layer down, and it is empty afterwards",
                           a.image.name));
      return 1;
    }
    return commit_over_mount(call, *served, a.bytes_per_second, a.is_quiet);
  }
  a.image.is_writable = true;
  a.session.ends_in_order = true;
  a.image.shares_writes = true; // its base is written to, and what it reads stays the same
  a.image.discards = true;
  a.keeps_content = a.keeps_content || !a.base.empty();
  return run_session(call, a.session, [&](command_session& session) { return commit(session, a); });
}

} // namespace bgfs
