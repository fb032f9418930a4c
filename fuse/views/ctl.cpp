// SPDX-License-Identifier: MIT
// ctl: one verb per write; reading it lists those that apply.
#include "fuse/tree/external_snapshots.h"
#include "fuse/tree/reload.h"
#include "fuse/views/check_command.h"
#include "fuse/views/commit_command.h"
#include "fuse/views/common.h"

#include "graph/base/text.h"

#include <algorithm>
#include <array>
#include <sstream>

namespace bgfs {
namespace {

struct verb {
  std::string_view name;
  std::string_view summary;
  // Whether it could do anything to the root as it is now, for who reads ctl.
  bool (*applies)(const exported_root& root, const mount_state& mount);
  // `rest`: what follows the name, without the space between.
  task<void> (*run)(view_subject subject, std::string rest);
  bool takes_more = false;
  bool changes_graph = false;
  // What the kernel may have kept is wrong afterwards: it has forgotten it when the verb is
  // answered.
  bool changes_content = false;
};

task<void> flush(view_subject subject, std::string) {
  co_await subject.root->require_medium();
  co_await subject.mount.take_what_is_held_back();
  if (subject.root->is_writable())
    co_await subject.root->place().run([disk = subject.root->disk()] { return disk->flush(); });
}

task<void> retry(view_subject subject, std::string) {
  co_await subject.root->retry(subject.pid);
}

task<void> revert(view_subject subject, std::string rest) {
  if (rest.empty())
    co_await fail(error_kind::invalid_argument,
                  "write 'revert NAME', with the name of a snapshot as snapshots/ lists it");
  async_shared_mutex::guard looking;
  if (!has_external_snapshots(*subject.root))
    looking = co_await subject.mount.looking.lock_shared();
  co_await subject.root->open(subject.pid);
  co_await subject.root->snapshots().revert(std::move(rest));
}

// "web base2", "web none".
task<void> backing(view_subject subject, std::string rest) {
  std::istringstream words(rest);
  std::string overlay;
  std::string to;
  std::string more;
  words >> overlay >> to >> more;
  if (to.empty() || !more.empty())
    co_await fail(error_kind::invalid_argument,
                  "write 'backing NODE OTHER' or 'backing NODE none', with the names of nodes of "
                  "the graph file");
  std::optional<std::string> target;
  if (to != "none")
    target = to;
  co_await change_backing_at_run_time(subject.mount, std::move(overlay), std::move(target),
                                      subject.pid);
}

// The live image; null: the root is not open.
const node* image_of(const exported_root& root) {
  const std::vector<node*> layers = root.layers();
  return layers.empty() ? nullptr : layers.front();
}

constexpr std::array verbs = {
    verb{"flush", "makes everything written so far durable",
         [](const exported_root& r, const mount_state&) { return r.disk() != nullptr; }, flush},
    verb{"retry", "tries again to open a root that failed",
         [](const exported_root& r, const mount_state&) { return r.failure() != nullptr; }, retry},
    verb{"check",
         "looks for contradictions in the image; what it finds is in last-check. With "
         "repair=leaks, requests wait while space that nobody uses is given back; with wait=no, "
         "the job .bgfs/jobs/check-NAME goes on by itself",
         [](const exported_root& r, const mount_state&) {
           const node* const image = image_of(r);
           return image != nullptr && image->as_checkable() != nullptr;
         },
         check_command, true, true},
    verb{"revert",
         "NAME: the disk becomes what it was in that snapshot; what was written since is lost, "
         "unless another snapshot has it",
         [](const exported_root& r, const mount_state&) {
           const node* const image = image_of(r);
           return r.is_writable() && image != nullptr && image->as_snapshottable() != nullptr;
         },
         revert, true, true, true},
    verb{"commit",
         "the content of the live layer goes to the one below it, which nothing else may stand on; "
         "the job .bgfs/jobs/commit-NAME shows how far it is. With wait=no it goes on by itself, "
         "with complete=manual it copies what is written until it is told to complete, speed=20M "
         "limits it",
         [](const exported_root& r, const mount_state&) {
           return r.is_writable() && r.layers().size() > 1 &&
                  image_of(r)->as_emptiable() != nullptr;
         },
         commit_command, true, true},
    verb{"backing",
         "NODE OTHER: NODE gets the backing node OTHER (none: no more), kept in the state "
         "file beside the graph file",
         [](const exported_root& r, const mount_state& m) {
           return m.request.source.is_graph && r.disk() != nullptr;
         },
         backing, true, true},
};

task<std::string> render(view_subject subject) {
  std::string text;
  for (const verb& v : verbs)
    if (v.applies(*subject.root, subject.mount))
      text += fmt::format("{}  {}\n", v.name, v.summary);
  co_return text;
}

task<void> run(const verb& what, view_subject subject, std::string rest) {
  async_shared_mutex::guard looking;
  if (!what.changes_graph)
    looking = co_await subject.mount.looking.lock_shared();
  co_await what.run(std::move(subject), std::move(rest));
}

task<void> write(view_subject subject, std::string text) {
  const std::string word = text.substr(0, text.find(' '));
  const std::string rest = text.substr(std::min(text.size(), word.size() + 1));
  const auto found = std::ranges::find(verbs, std::string_view(word), &verb::name);
  if (found != verbs.end() && (found->takes_more || rest.empty())) {
    const result<> done = co_await as_result(run(*found, subject, rest));
    if (found->changes_content)
      co_await subject.mount.settle_with_kernel();
    co_await done;
    co_return;
  }
  std::array<std::string_view, verbs.size()> names;
  std::ranges::transform(verbs, names.begin(), &verb::name);
  co_await fail(error_kind::invalid_argument, "'{}' is no verb of ctl (these are: {}){}", text,
                fmt::join(names, ", "), did_you_mean(text, names));
}

} // namespace

extern constinit const view ctl_view{
    .name = "ctl",
    .summary = "takes one verb per write; reading it lists those that apply",
    .render = render,
    .write = write,
    .needs_medium = false,
    .changes_graph = true};

} // namespace bgfs
