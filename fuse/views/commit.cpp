// SPDX-License-Identifier: MIT
// ctl commit. What would change under somebody's hands, or must not change, is refused first.
#include "fuse/views/commit_command.h"

#include "fuse/views/common.h"
#include "graph/base/text.h"
#include "graph/io/spawn.h"
#include "graph/jobs/commit_in_use.h"

#include <algorithm>
#include <cerrno>
#include <sstream>

namespace bgfs {
namespace {

struct layers_to_commit {
  node* overlay = nullptr;
  node* base = nullptr;
};

result<layers_to_commit> find_layers(const exported_root& root) {
  BGFS_CHECK(root.require_medium());
  const std::vector<node*> layers = root.layers();
  if (layers.size() < 2)
    return fail(error_kind::invalid_argument,
                "'{}' has no backing file that its content could go to", root.name());
  if (!root.is_writable())
    return fail(error{
        error_kind::permission,
        fmt::format("'{}' is exported read-only; set 'writable: true' in its export", root.name()),
        EROFS});
  if (layers[0]->as_emptiable() == nullptr)
    return fail(error_kind::unsupported,
                "'{}' cannot be committed: driver '{}' cannot make its image empty afterwards",
                root.name(), layers[0]->type().name);
  return layers_to_commit{layers[0], layers[1]};
}

// --- on the loop of the nodes ---

// The base and what holds its bytes.
result<> check_may_be_written(const node& n) {
  if (n.requested().must_stay_read_only)
    return fail(error{error_kind::permission,
                      fmt::format("{} is 'read-only: true' in the graph file, and a commit would "
                                  "write to it; take that away and reload, if it may be changed",
                                  n.describe()),
                      EPERM});
  for (const auto& e : n.children())
    if (!e->has_role(role::backing))
      BGFS_CHECK(check_may_be_written(e->child()));
  return {};
}

result<> check_nothing_else_above(const exported_root& root, const layers_to_commit& what) {
  for (const edge* e : what.base->parents())
    if (e->parent() != nullptr && !e->parent()->is_filter() && e->parent() != what.overlay)
      return fail(error_kind::busy,
                  "'{}' cannot be committed: {} stands on {} too, which would change under it",
                  root.name(), e->parent()->describe(), what.base->describe());
  return {};
}

task<void> check_nodes(const exported_root& root, const layers_to_commit& what) {
  co_await check_may_be_written(*what.base);
  co_await check_nothing_else_above(root, what);
}

// --- on the loop of the mount ---

// Who else stands on the base would find other bytes below.
result<> check_not_shared(const mount_state& mount, const exported_root& root,
                          const layers_to_commit& what) {
  for (const root_pointer& r : mount.roots)
    if (r.get() != &root && r->leads_to(*what.base) && !r->leads_to(*what.overlay))
      return fail(error_kind::busy,
                  "'{}' cannot be committed: root '{}' shows {} too, which would change under it",
                  root.name(), r->name(), what.base->describe());
  for (const auto& [name, snapshots] : mount.config().state().snapshots)
    for (const external_snapshot& s : snapshots)
      if (s.node == what.base->name())
        return fail(error_kind::busy,
                    "'{0}' cannot be committed: what is below it is snapshot '{1}' of '{2}'; "
                    "rmdir {2}.d/snapshots/{1} deletes that",
                    root.name(), s.name, name);
  // One that is opened on demand may be closed now.
  for (const std::string& user : mount.config().users_of(what.base->name()))
    if (user != fmt::format("node '{}'", what.overlay->name()))
      return fail(error_kind::busy,
                  "'{}' cannot be committed: {} stands on {} too, which would change under it",
                  root.name(), user, what.base->describe());
  return {};
}

error in_use(const exported_root& root, const opener& by) {
  return {error_kind::busy,
          fmt::format("'{}' cannot be committed while process {} ({}) has {} open; close it there",
                      root.name(), by.pid, by.command.empty() ? "?" : by.command,
                      by.what.empty() ? root.name() : by.what)};
}

// Who writes to the live disk is no matter; layers below would change under who reads them.
result<> check_openers(const mount_state& mount, const layers_to_commit& what) {
  for (const root_pointer& r : mount.roots) {
    if (!r->leads_to(*what.overlay))
      continue;
    if (!r->points().all().empty())
      return fail(error_kind::busy,
                  "'{0}' cannot be committed while it has point '{1}'; end it with rmdir "
                  "{0}.d/points/{1}",
                  r->name(), r->points().all().front()->name);
    for (const auto& [number, view] : r->open_views)
      for (const opener& o : view.users)
        if (!o.shows_live)
          return fail(in_use(*r, o));
  }
  return {};
}

task<layers_to_commit> check_all(const mount_state& mount, exported_root& root) {
  const layers_to_commit what = co_await find_layers(root);
  if (root.spec().is_untrusted)
    co_await fail(error_kind::permission,
                  "'{}' is 'untrusted: true': what its header names as its base is not written to",
                  root.name());
  co_await check_not_shared(mount, root, what);
  co_await root.place().run([&] { return check_nodes(root, what); });
  co_await check_openers(mount, what);
  co_return what;
}

// The base, or what its nodes are, has changed for whoever shows it.
task<void> tell_layers_changed(mount_state& mount, const node& base) {
  const auto looking = co_await mount.looking.lock_shared();
  for (const root_pointer& r : std::vector<root_pointer>(mount.roots))
    if (r->attached() != nullptr && r->leads_to(base))
      co_await r->layers_changed();
}

task<void> commit(mount_state& mount, root_pointer root, layers_to_commit what, job& control) {
  const result<> done = co_await as_result(root->place().run([&] {
    return commit_in_use({.top = root->attached(), .base = what.base, .control = &control},
                         *what.overlay);
  }));
  co_await shielded(tell_layers_changed(mount, *what.base));
  co_await done;
}

// --- its words ---------------------------------------------------------------------------------

struct commit_words {
  bool waits = true;
  bool completes_by_itself = true;
  u64 bytes_per_second = 0;
};

// False: it is none of them.
bool take_word(commit_words& given, std::string_view word) {
  constexpr std::string_view speed = "speed=";
  if (word == "wait=yes" || word == "wait=no") {
    given.waits = word == "wait=yes";
    return true;
  }
  if (word == "complete=auto" || word == "complete=manual") {
    given.completes_by_itself = word == "complete=auto";
    return true;
  }
  const result<u64> bytes =
      parse_size(word.starts_with(speed) ? word.substr(speed.size()) : std::string_view());
  if (bytes)
    given.bytes_per_second = *bytes;
  return bytes.has_value();
}

result<commit_words> parse_words(const std::string& text) {
  commit_words given;
  std::istringstream words(text);
  for (std::string word; words >> word;)
    if (!take_word(given, word))
      return fail(
          error_kind::invalid_argument,
          "write 'commit', with any of 'wait=no', 'complete=manual' and 'speed=RATE' (bytes "
          "a second, such as 20M) behind it, not 'commit {}': '{}' is none of them, and "
          "the content goes to the next layer down",
          text, word);
  return given;
}

} // namespace

task<void> commit_command(view_subject subject, std::string rest) {
  mount_state& mount = subject.mount;
  const root_pointer root = subject.root->shared_from_this();
  const commit_words words = co_await parse_words(rest);
  job_pointer begun;
  {
    const auto no_reload = co_await mount.reloading.lock(); // nodes stay what and where they are
    co_await mount.take_what_is_held_back();
    const auto looking = co_await mount.looking.lock_shared();
    co_await root->open(subject.pid);
    const layers_to_commit what = co_await check_all(mount, *root);
    begun = co_await mount.jobs.start(
        {.what = {.id = "commit-" + root->name(),
                  .type = "commit",
                  .has_pause_points = true,
                  .waits_to_complete = !words.completes_by_itself,
                  .bytes_per_second = words.bytes_per_second,
                  .when_cancelled = fmt::format("'{}' keeps all that it has", root->name()),
                  .has_audience = words.waits},
         .root = root,
         .nodes = {what.overlay, what.base}},
        [&mount, root, what](job& control) { return commit(mount, root, what, control); });
  }
  if (words.waits)
    co_await mount.jobs.list().await_or_cancel(begun);
}

} // namespace bgfs
