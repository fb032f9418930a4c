// SPDX-License-Identifier: MIT
#include "fuse/tree/overlay_merging.h"

#include "fuse/tree/exported_root.h"
#include "fuse/tree/reload.h"
#include "graph/io/offload.h"
#include "graph/io/spawn.h"
#include "graph/io/with.h"
#include "graph/jobs/commit.h"
#include "graph/model/naming.h"

#include <algorithm>
#include <set>
#include <unistd.h>

namespace bgfs {
namespace {

// An overlay that the state file defines.
struct overlay {
  std::string name;
  std::string backing;
  std::string path;
};

std::string text_of(const value& v, std::string_view key) {
  const value* const found = v.find(key);
  const std::string* const text = found == nullptr ? nullptr : found->as_text();
  return text == nullptr ? std::string() : *text;
}

std::vector<overlay> overlays_of(const graph_state& state) {
  std::vector<overlay> all;
  for (const value& v : state.nodes) {
    overlay o{.name = text_of(v, "node-name"), .backing = text_of(v, "backing"), .path = {}};
    if (const auto changed = state.backing.find(o.name); changed != state.backing.end())
      o.backing = changed->second.value_or("");
    if (const value* const file = v.find("file"); file != nullptr && file->as_map() != nullptr)
      o.path = text_of(*file, "filename");
    all.push_back(std::move(o));
  }
  return all;
}

struct step {
  overlay which;
  std::string into; // ""; it is dropped
};

// What is named by nobody: no snapshot, no root.
class chain {
public:
  explicit chain(const graph_config& config)
      : config_(config), state_(config.state()), overlays_(overlays_of(config.state())) {
    for (const export_spec& e : config.exports())
      shown_.insert(e.node_name);
    for (const auto& [root, all] : state_.snapshots)
      for (const external_snapshot& s : all)
        kept_.insert(s.node);
  }

  // `not_again`: those that could not be merged.
  [[nodiscard]] std::optional<step> next(const std::set<std::string>& not_again) const {
    for (const overlay& o : overlays_) {
      const bool is_named = shown_.contains(o.name) || kept_.contains(o.name);
      if (not_again.contains(o.name))
        continue;
      if (!is_named && config_.users_of(o.name).empty())
        return step{o, {}};
      // Only what is over it reads what it is merged into, and nobody writes to it.
      const bool may_change_below = !o.backing.empty() && !kept_.contains(o.backing) &&
                                    config_.users_of(o.backing).size() == 1;
      if (!shown_.contains(o.name) && may_change_below)
        return step{o, o.backing};
    }
    return std::nullopt;
  }

private:
  const graph_config& config_;
  const graph_state& state_;
  std::vector<overlay> overlays_;
  std::set<std::string> shown_;
  std::set<std::string> kept_;
};

// --- one step ----------------------------------------------------------------------------------

task<void> copy_down(node& top, node& base, job& control) {
  co_await with(top.owner().attach("merging", top, {permission::consistent_read, permission::all}),
                [&](root& over) {
                  return commit_layers(
                      {.top = &over, .base = &base, .is_below_others = true, .control = &control});
                });
}

// The node that one is merged into may be the backing of something that is no overlay of ours. On
// the loop of the nodes.
task<void> require_mergeable(const node& base, const node& over) {
  for (const edge* e : base.parents())
    if (e->parent() != &over)
      co_await fail(error_kind::busy, "'{}' cannot be merged into '{}', which {} reads as well",
                    over.name(), base.name(), e->describe());
  if (base.length() > over.length())
    co_await fail(error_kind::unsupported,
                  "'{}' is shorter than '{}', into which it cannot be merged", over.name(),
                  base.name());
}

task<void> merge_bytes(mount_state& mount, const step& s, job& control) {
  node* top = nullptr;
  node* base = nullptr;
  {
    const auto looking = co_await mount.looking.lock_shared();
    top = co_await mount.look_for_node(s.which.name);
    base = co_await mount.look_for_node(s.into);
    if (top == nullptr || base == nullptr || &top->owner() != &base->owner())
      co_await fail(error_kind::busy, "'{}' is not open, and is merged when it is", s.which.name);
    co_await run_on(top->owner().home(), require_mergeable(*base, *top));
    co_await mount.jobs.works_on(control, {top, base});
  }
  const result<> done =
      co_await as_result(run_on(top->owner().home(), copy_down(*top, *base, control)));
  // The rest of it is a reload.
  co_await mount.jobs.works_on(control, {});
  co_await done;
}

// All that was over the overlay, or was it, is what it was merged into.
void replace(graph_state& state, const std::string& gone, const std::string& by) {
  std::erase_if(state.nodes, [&](const value& v) { return text_of(v, "node-name") == gone; });
  state.backing.erase(gone);
  if (by.empty())
    return;
  for (value& v : state.nodes)
    if (text_of(v, "backing") == gone)
      v.set("backing", by);
  for (auto& [node, backing] : state.backing)
    if (backing == gone)
      backing = by;
  for (auto& [root, all] : state.snapshots)
    for (external_snapshot& s : all)
      if (s.node == gone)
        s.node = by;
}

// On the loop of `overlay`; nullopt: who writes to it names what is below it.
task<std::optional<image_reference>> reference_if_frozen(const node& overlay, const node& below) {
  co_return overlay.is_read_only() ? std::optional(reference_to(below)) : std::nullopt;
}

// Others, who know nothing of the state file, find the same chain.
task<void> name_below(mount_state& mount, const overlay& of, const std::string& below) {
  node* frozen = nullptr;
  std::optional<image_reference> reference;
  {
    const auto looking = co_await mount.looking.lock_shared();
    node* const n = co_await mount.look_for_node(of.name);
    const node* const to = co_await mount.look_for_node(below);
    if (n != nullptr && to != nullptr)
      reference = co_await run_on(n->owner().home(), reference_if_frozen(*n, *to));
    if (reference)
      frozen = n;
  }
  if (frozen == nullptr) {
    co_await write_backing_name(mount, of.name, 0);
    co_return;
  }
  result<> written = co_await as_result(
      run_on(frozen->owner().home(), change_backing_name(*frozen, *std::move(reference))));
  if (written)
    co_return;
  written.error().add_context(
      fmt::format("'{}' has its new backing node, but its header does not name it", of.path));
  mount.log.add(0, "merge", written.error());
}

task<void> carry_out(mount_state& mount, step s, job& control) {
  std::vector<overlay> above = overlays_of(mount.config().state());
  std::erase_if(above, [&](const overlay& o) { return o.backing != s.which.name; });
  if (!s.into.empty())
    co_await merge_bytes(mount, s, control);
  // If we stop before this, the overlay still holds all that was copied.
  co_await shielded(change_state_at_run_time(
      mount, [&](graph_state& state) { replace(state, s.which.name, s.into); }, 0));
  for (const overlay& o : above)
    co_await shielded(name_below(mount, o, s.into));
  const std::string path = s.which.path;
  (void)co_await offload([&path] { return ::unlink(path.c_str()); });
}

} // namespace

bool has_overlays_to_merge(const mount_state& mount) {
  return chain(mount.config()).next({}).has_value();
}

task<void> merge_overlays(mount_state& mount, job& control) {
  std::set<std::string> failed;
  std::optional<error> first;
  while (const std::optional<step> s = chain(mount.config()).next(failed)) {
    co_await stop_if_cancelled("the merging of overlays");
    result<> done = co_await as_result(carry_out(mount, *s, control));
    if (done)
      continue;
    if (!first)
      first = done.error();
    failed.insert(s->which.name);
  }
  if (first)
    co_await fail(*std::move(first));
}

} // namespace bgfs
