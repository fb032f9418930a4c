// SPDX-License-Identifier: MIT
#include "fuse/tree/reload.h"

#include "fuse/tree/relocate.h"

#include "graph/io/offload.h"
#include "graph/io/spawn.h"
#include "graph/model/migration.h"
#include "graph/model/naming.h"

#include <algorithm>
#include <map>
#include <set>

namespace bgfs {
namespace {

task<graph_config> read_again(mount_state& mount, const config_source& source,
                              const graph_state* state) {
  const registry& drivers = mount.nodes.drivers();
  result<graph_config> config =
      co_await offload([&source, &drivers, state] { return source.read(drivers, state); });
  if (!config)
    co_return fail(std::move(config).error());
  // At mount a bad fragment fails only its own roots. Here somebody has just edited something.
  if (!config->warnings().empty())
    co_return fail(config->warnings().front());
  co_await mount.require_outside(config->source());
  for (const std::string& path : config->host_paths())
    co_await mount.require_outside(path);
  config->keep_out_of(mount.places.now());
  co_return *std::move(config);
}

std::vector<live_root> live_roots(const mount_state& mount) {
  std::vector<live_root> roots;
  for (const root_pointer& r : mount.roots)
    roots.push_back({.spec = &r->spec(),
                     .attached = r->attached(),
                     .is_failed = r->phase() == root_phase::failed});
  return roots;
}

const export_spec* find_export(const graph_config& config, std::string_view name) {
  const auto at = std::ranges::find(config.exports(), name, &export_spec::name);
  return at == config.exports().end() ? nullptr : &*at;
}

// What is shown beside the roots that stay.
std::vector<const root*> roots_beside(const mount_state& mount, const graph_config& next) {
  std::vector<const root*> all;
  for (const root_pointer& r : mount.roots)
    if (find_export(next, r->name()) != nullptr)
      for (const root* beside : r->beside().over_configured_nodes())
        all.push_back(beside);
  return all;
}

using export_map = std::map<std::string_view, const export_spec*>;

export_map exports_by_name(const graph_config& config) {
  export_map found;
  for (const export_spec& e : config.exports())
    found.emplace(e.name, &e);
  return found;
}

// Who would lose something: the raw file they have open, or the right to write to it.
result<> check_openers(const mount_state& mount, const graph_config& next) {
  for (const root_pointer& r : mount.roots) {
    const export_spec* const after = find_export(next, r->name());
    if (const opener* const o = r->beside().user_of(""); o != nullptr && after == nullptr)
      return fail(error_kind::busy,
                  "root '{}' would be removed, and process {} ({}) has {} open; close it there, or "
                  "force the reload",
                  r->name(), o->pid, o->command, o->what);
    if (r->openers.empty())
      continue;
    if (r->through_kernel().is_in_use())
      continue; // check_passed_through says more
    for (const opener& o : r->openers) {
      if (after == nullptr)
        return fail(error_kind::busy,
                    "root '{}' would be removed, and process {} ({}) has it open; close it there, "
                    "or force the reload",
                    r->name(), o.pid, o.command);
      if (o.is_writing && !after->is_writable)
        return fail(error_kind::busy,
                    "root '{}' would become read-only, and process {} ({}) has it open for "
                    "writing; close it there, or force the reload",
                    r->name(), o.pid, o.command);
    }
  }
  return {};
}

// Roots that the kernel serves by itself: not even force takes a file away from it.
result<> check_passed_through(const mount_state& mount, const graph_config& next,
                              const reload_plan& plan) {
  for (const root_difference& d : plan.roots) {
    exported_root* const root = mount.find_root(d.name);
    if (root == nullptr || !root->through_kernel().is_in_use())
      continue;
    const export_spec* const after = find_export(next, d.name);
    const std::string reason = root->through_kernel().reason();
    if (after == nullptr)
      return fail(error_kind::busy, "root '{}' cannot be removed now: {}", d.name, reason);
    if (d.has_new_nodes)
      return fail(error_kind::busy, "the nodes of root '{}' cannot be changed now: {}", d.name,
                  reason);
    if (std::string changed = root->through_kernel().forbidden_change(*after); !changed.empty())
      return fail(error_kind::busy, "{}", changed);
  }
  return {};
}

// The kernel has the length of the only root for good, and may have bytes of it: it goes on over
// the same nodes, if with other options.
result<> check_held_back(const mount_state& mount, const reload_plan& plan) {
  const graph_edit& e = plan.edit;
  const bool has_other_nodes = std::ranges::any_of(
      e.roots, [](const root_step& s) { return s.top != s.which->top().name(); });
  if (!mount.is_writeback() || (e.leaving.empty() && e.opens.empty() && e.children.empty() &&
                                e.replaces.empty() && !has_other_nodes))
    return {};
  return fail(error_kind::busy,
              "the nodes of '{}' cannot be changed while it is mounted with -o "
              "writeback; unmount it first",
              mount.request.source.only_export);
}

// What exports insist on must hold for nodes that stay, and (`made_by_edit`) for those that come.
task<void> require_passable(const mount_state& mount, const graph_config& next,
                            const reload_plan& plan, bool made_by_edit) {
  for (const root_difference& d : plan.roots) {
    const export_spec* const after = find_export(next, d.name);
    exported_root* const root = mount.find_root(d.name);
    const bool is_open = root != nullptr && root->attached() != nullptr;
    if (after == nullptr || after->passthrough != passthrough_mode::on)
      continue;
    if (made_by_edit && (d.has_new_nodes || d.fate == root_fate::added)) {
      node* const top = mount.nodes.find(after->node_name);
      if (top != nullptr && top->is_open())
        co_await require_passthrough(mount, *after, *top);
    }
    if (!made_by_edit && is_open && !d.has_new_nodes && d.fate == root_fate::changed)
      co_await root->place().run(
          [&] { return require_passthrough(mount, *after, root->attached()->top()); });
  }
}

std::unexpected<error> in_the_way(const job& which) {
  return fail(error_kind::busy, "job '{}' works on what would be changed; {}", which.id(),
              how_to_end(which));
}

// Of roots that change there are no nodes in the edit, if those stay as they are.
result<> check_jobs(const mount_state& mount, const reload_plan& plan, std::vector<node*> touched) {
  for (const root_difference& d : plan.roots)
    if (const exported_root* const root = mount.find_root(d.name);
        root != nullptr && root->attached() != nullptr && d.fate != root_fate::kept)
      touched.push_back(&root->attached()->top());
  if (const job* const which = mount.jobs.in_the_way_of(touched))
    return in_the_way(*which);
  return {};
}

// The nodes of the mount that an edit changes or leads to.
class touched_nodes {
public:
  touched_nodes(mount_state& mount, const graph_edit& edit) : mount_(mount) {
    all_ = edit.leaving;
    for (const node_spec& s : edit.opens)
      add_children(s);
    for (const reopen_step& s : edit.reopens)
      all_.push_back(s.target);
    for (const child_step& s : edit.children) {
      all_.push_back(s.parent);
      add(s.child);
    }
    for (const replace_step& s : edit.replaces) {
      all_.push_back(s.from);
      add(s.to);
    }
    for (const root_step& s : edit.roots) {
      all_.push_back(&s.which->top());
      add(s.top);
    }
    for (const attach_step& s : edit.attaches)
      add(s.top);
    for (root* r : edit.releases)
      all_.push_back(&r->top());
  }

  [[nodiscard]] const std::vector<node*>& all() const { return all_; }

private:
  void add(std::string_view name) { // one that the edit opens is not there yet
    if (node* const n = mount_.find_node(name))
      all_.push_back(n);
  }
  void add_children(const node_spec& spec) {
    for (const child_spec& c : spec.children) {
      if (const auto* below = std::get_if<std::unique_ptr<node_spec>>(&c.target))
        add_children(**below);
      else
        add(std::get<std::string>(c.target));
    }
  }

  mount_state& mount_;
  std::vector<node*> all_;
};

// What a point keeps is the change of nodes that stay as they are, where they are.
result<> check_points(mount_state& mount, const graph_config& next, const reload_plan& plan) {
  const auto has_point = [](const root_pointer& r) { return !r->points().all().empty(); };
  if (std::ranges::none_of(mount.roots, has_point))
    return {};
  std::set<const node*> touched;
  for (node* n : touched_nodes(mount, plan.edit).all()) {
    if (touched.contains(n))
      continue;
    const std::vector<node*> connected = component_of(*n);
    touched.insert(connected.begin(), connected.end());
  }
  for (const root_pointer& r : mount.roots) {
    if (!has_point(r))
      continue;
    const export_spec* const after = find_export(next, r->name());
    const bool stays = after != nullptr && after->iothread == r->spec().iothread &&
                       !touched.contains(&r->disk()->top());
    if (!stays)
      return fail(error_kind::busy,
                  "root '{0}' and what it shares nodes with cannot be changed while '{0}' has "
                  "point '{1}'; end it with rmdir {0}.d/points/{1}",
                  r->name(), r->points().all().front()->name);
  }
  return {};
}

void trace_plan(const mount_state& mount, const reload_plan& plan) {
  const auto count = [&plan](root_fate fate) {
    return [&plan, fate] { return std::ranges::count(plan.roots, fate, &root_difference::fate); };
  };
  trace<point::reload_plan>(mount.home.log(), count(root_fate::added), count(root_fate::removed),
                            count(root_fate::changed), count(root_fate::kept));
}

class reloading {
public:
  reloading(mount_state& mount, reload_request request) : mount_(mount), request_(request) {}

  task<std::string> run() {
    config_source source = mount_.request.source;
    source.is_read_only = request_.is_read_only.value_or(source.is_read_only);
    graph_config next = co_await read_again(mount_, source, request_.state);
    next_ = &next;
    const auto alone = co_await mount_.looking.lock();
    const auto no_opening = co_await mount_.opening.lock();
    if (const job* const which = mount_.jobs.on_another_loop(mount_.home))
      co_await in_the_way(*which);
    for (const root_pointer& r : mount_.roots)
      co_await r->beside().close_unused_locked();
    if (!request_.is_forced)
      co_await check_openers(mount_, next);
    const result<edit_outcome> applied = co_await as_result(change(next));
    co_await shielded(settle(mount_));
    mount_.stop_idle_iothreads();
    if (!applied)
      co_return fail(applied.error());
    mount_.request.source = std::move(source);
    co_await shielded(meet_again());
    for (const error& warning : applied->warnings)
      mount_.log.add(request_.pid, "reload", warning);
    co_return text_;
  }

private:
  struct planned {
    reload_plan plan;
    bool has_reopens = false;
    std::vector<root_pointer> added; // one for each attach_step
  };

  // What changes is on the mount's own loop meanwhile: an edit is one of one graph.
  task<edit_outcome> change(graph_config& next) {
    for (const export_spec& e : next.exports())
      (void)co_await mount_.graph_of(e.iothread);
    co_await make_plan({});
    co_await check_jobs(mount_, plan_.plan, touched_nodes(mount_, plan_.plan.edit).all());
    co_await check_passed_through(mount_, next, plan_.plan);
    co_await check_held_back(mount_, plan_.plan);
    co_await check_points(mount_, next, plan_.plan);
    co_await require_passable(mount_, next, plan_.plan, false);
    co_await shielded(close_beside_removed());
    result<edit_outcome> applied = co_await as_result(apply());
    if (!applied && applied.error().kind() == error_kind::unsupported && plan_.has_reopens) {
      // A driver cannot change what was asked for while it is open: then it is opened anew.
      co_await make_plan({.may_reopen = false});
      applied = co_await as_result(apply());
    }
    if (applied)
      co_await shielded(adopt(std::move(next)));
    co_return std::move(applied);
  }

  task<void> make_plan(plan_rules rules) {
    plan_ = {};
    const std::vector<live_root> roots = live_roots(mount_);
    rules.beside = roots_beside(mount_, *next_);
    plan_.plan = co_await plan_reload(mount_.graphs(), *next_, roots, rules);
    plan_.has_reopens = !plan_.plan.edit.reopens.empty();
    text_ = plan_.plan.to_text();
    trace_plan(mount_, plan_.plan);
    graph_edit& edit = plan_.plan.edit;
    for (std::size_t i = 0; i < edit.attaches.size(); i++) {
      auto made =
          std::make_shared<exported_root>(mount_, next_->exports()[plan_.plan.attached_exports[i]]);
      edit.attaches[i].observer = made.get();
      edit.attaches[i].made = made->attachment();
      plan_.added.push_back(std::move(made));
    }
    release_layers();
    edit.before_commit = [this] { return finish_preparing(); };
  }

  // Views of layers let go of nodes that may be closed, and find their place again afterwards.
  void release_layers() {
    graph_edit& edit = plan_.plan.edit;
    std::set<std::string_view> changing;
    for (const root_difference& d : plan_.plan.roots)
      if (d.has_new_nodes || d.fate == root_fate::removed)
        changing.insert(d.name);
    for (const root_pointer& r : mount_.roots)
      for (root* layer : r->layer_roots())
        if (changing.contains(r->name()) ||
            std::ranges::find(edit.leaving, &layer->top()) != edit.leaving.end())
          edit.releases.push_back(layer);
  }

  // Only when it is forced is there any that somebody uses.
  task<void> close_beside_removed() {
    for (const root_difference& d : plan_.plan.roots)
      if (exported_root* const gone = mount_.find_root(d.name);
          gone != nullptr && d.fate == root_fate::removed)
        co_await gone->beside().close_all_locked();
  }

  // What a header has led to is known only now. The state is the last thing: once it is written the
  // edit happens.
  task<void> finish_preparing() {
    for (const auto& n : mount_.nodes.nodes()) {
      const std::string path = n->is_open() ? n->instance().host_path() : std::string();
      if (!path.empty())
        co_await mount_.require_outside(path);
    }
    co_await require_passable(mount_, *next_, plan_.plan, true);
    graph_state* const state = request_.state;
    if (state == nullptr)
      co_return;
    if (request_.before_commit) {
      co_await request_.before_commit(*state);
      next_->replace_snapshots(state->snapshots);
    }
    const result<> written = co_await offload([state] { return write_graph_state(*state); });
    co_await written;
  }

  task<edit_outcome> apply() {
    graph_edit edit = std::move(plan_.plan.edit);
    if (edit.is_empty()) {
      co_await finish_preparing(); // the state may say something that is no matter of nodes
      co_return edit_outcome{};
    }
    co_await gather(mount_, touched_nodes(mount_, edit).all(), mount_.nodes);
    edit_outcome outcome = co_await mount_.nodes.apply(std::move(edit));
    co_return outcome;
  }

  // From here on nothing fails: the graph has changed.
  task<void> adopt(graph_config next) {
    std::vector<root_pointer> now;
    std::set<const exported_root*> staying;
    const export_map exports = exports_by_name(next);
    root_list added;
    added.assign(std::move(plan_.added));
    for (const root_difference& d : plan_.plan.roots) {
      if (d.fate == root_fate::removed)
        continue;
      const export_spec& spec = *exports.at(d.name);
      root_pointer r = find(mount_.roots, d.name);
      if (r != nullptr) {
        now.push_back(r);
        staying.insert(r.get());
        co_await r->go_on(spec, d.has_new_nodes);
        continue;
      }
      r = find(added, d.name);
      const bool is_attached = r != nullptr;
      if (r == nullptr) // opened on demand
        r = std::make_shared<exported_root>(mount_, spec);
      now.push_back(r);
      if (is_attached)
        co_await r->begin_open();
      if (mount_.root_added)
        mount_.root_added(r);
    }
    const std::vector<root_pointer> before = mount_.roots;
    mount_.roots.assign(std::move(now));
    if (mount_.notifications != nullptr) // the link count
      mount_.notifications->forget_attributes(FUSE_ROOT_ID);
    for (const root_pointer& r : before) {
      if (staying.contains(r.get()))
        continue;
      r->end();
      if (mount_.root_removed)
        mount_.root_removed(*r);
    }
    mount_.request.config = std::move(next);
    mount_.shape++;
  }

  // Roots may show other bytes of each other now. What was written by lease before that was settled
  // has told nobody.
  task<void> meet_again() {
    for (const root_pointer& r : std::vector<root_pointer>(mount_.roots)) {
      if (r->openers.empty() && r->open_views.empty())
        continue;
      co_await r->meet_overlapping();
      co_await r->settle_leased_writes();
      r->tell_other_views({});
    }
  }

  static root_pointer find(const root_list& in, std::string_view name) {
    exported_root* const found = in.find(name);
    return found == nullptr ? nullptr : found->shared_from_this();
  }

  mount_state& mount_;
  reload_request request_;
  graph_config* next_ = nullptr;
  planned plan_;
  std::string text_;
};

// Roots that had failed get another chance: what was in their way may have been the reason for the
// edit. One that fails again is as it was.
task<std::string> retry_failed(mount_state& mount, u32 pid) {
  std::string text;
  for (const root_pointer& r : std::vector<root_pointer>(mount.roots)) {
    if (r->phase() != root_phase::failed)
      continue;
    const result<> opened = co_await as_result(r->retry(pid));
    text += opened
                ? fmt::format("root {}: opened\n", r->name())
                : fmt::format("root {}: still failed: {}\n", r->name(), opened.error().message());
  }
  co_return text;
}

} // namespace

namespace {

void announce_begin(mount_state& mount, bool is_forced) {
  trace<point::reload_begin>(mount.home.log(), mount.config().source(), is_forced);
  value data;
  data.set("is-forced", is_forced);
  mount.events.emit(event_name::reload_begun, std::move(data));
}

void announce_end(mount_state& mount, const result<std::string>& done,
                  std::chrono::steady_clock::time_point begun) {
  value data;
  if (!done) {
    trace<point::reload_refuse>(mount.home.log(), mount.config().source(), done.error().message());
    data.set("reason", done.error().message());
    mount.events.emit(event_name::reload_refused, std::move(data));
    return;
  }
  trace<point::reload_commit>(mount.home.log(), mount.config().source(), elapsed_us(begun));
  data.set("plan", *done);
  mount.events.emit(event_name::reload_applied, std::move(data));
}

} // namespace

task<std::string> reload(mount_state& mount, reload_request request) {
  const auto one_at_a_time = co_await mount.reloading.lock();
  co_await mount.take_what_is_held_back();
  const auto begun = std::chrono::steady_clock::now();
  announce_begin(mount, request.is_forced);
  reloading work(mount, request);
  result<std::string> done = co_await as_result(work.run());
  announce_end(mount, done, begun);
  if (!done)
    co_return fail(done.error().kind(), "{}; nothing was changed", done.error().message());
  const std::string retried = co_await retry_failed(mount, request.pid);
  co_await mount.settle_with_kernel(); // what is read from now on is the new content
  co_return *done + retried;
}

namespace {

// Definitions that open an image without locking or writing anything.
void make_harmless(node_spec& spec) {
  spec.generic.is_read_only = true;
  spec.generic.is_auto_read_only = false;
  spec.generic.force_share = true;
  spec.generic.detect_zeroes = detect_zeroes_mode::off;
  for (child_spec& c : spec.children)
    if (auto* below = std::get_if<std::unique_ptr<node_spec>>(&c.target))
      make_harmless(**below);
}

task<void> open_all(graph& scratch, const graph_config& next, const export_spec& root) {
  for (const std::string& name : next.opening_order(root.node_name)) {
    if (scratch.find(name) != nullptr)
      continue;
    node_spec spec = co_await next.make_node_spec(name);
    spec.references = &next.references(root);
    make_harmless(spec);
    (void)co_await scratch.open(std::move(spec));
  }
}

// The message of what keeps a root from being opened; "" if nothing does. An image that is open
// for writing can be read, too: what is on disk is consistent at every instant.
task<std::string> try_to_open(mount_state& mount, const graph_config& next, std::string_view name) {
  graph scratch(mount.home, mount.nodes.drivers(), nullptr);
  const result<> opened = co_await as_result(open_all(scratch, next, *find_export(next, name)));
  (void)co_await as_result(scratch.close_all());
  co_return opened ? std::string() : opened.error().message();
}

} // namespace

namespace {

task<void> name_backing_in_header(node& n) {
  if (n.is_read_only() || !n.is_active() || n.as_backing_writer() == nullptr)
    co_return;
  std::optional<image_reference> reference;
  if (n.backing() != nullptr)
    reference = reference_to(n.backing()->child());
  co_await n.as_backing_writer()->change_backing_reference(reference);
}

} // namespace

// The change is in force already: what fails here is only told.
task<void> write_backing_name(mount_state& mount, std::string overlay, u32 pid) {
  const auto no_opening = co_await mount.opening.lock();
  node* const n = mount.find_node(overlay);
  if (n == nullptr)
    co_return;
  result<> written = co_await as_result(run_on(n->owner().home(), name_backing_in_header(*n)));
  if (written)
    co_return;
  written.error().add_context(
      fmt::format("{} has its new backing node, but its header does not name it", n->describe()));
  mount.log.add(pid, "backing", written.error());
}

namespace {
struct plan_of_now {
  reload_plan plan;
  result<> clear_of_points;
  result<> clear_of_jobs;
};

task<plan_of_now> plan_now(mount_state& mount, const graph_config& next) {
  const auto no_opening = co_await mount.opening.lock();
  const std::vector<live_root> roots = live_roots(mount);
  plan_of_now now;
  now.plan =
      co_await plan_reload(mount.graphs(), next, roots, {.beside = roots_beside(mount, next)});
  now.clear_of_points = check_points(mount, next, now.plan);
  now.clear_of_jobs = check_jobs(mount, now.plan, touched_nodes(mount, now.plan.edit).all());
  co_return now;
}
} // namespace

namespace {

task<void> change_state_locked(mount_state& mount, std::function<void(graph_state&)> change,
                               u32 pid,
                               std::function<task<void>(graph_state&)> before_commit = {}) {
  if (!mount.request.source.is_graph)
    co_await fail(error_kind::unsupported,
                  "this mount shows one image without a graph file, beside which the change could "
                  "be kept; write a graph file");
  {
    const auto looking = co_await mount.looking.lock_shared();
    const graph_config now = co_await read_again(mount, mount.request.source, nullptr);
    const plan_of_now difference = co_await plan_now(mount, now);
    co_await difference.clear_of_jobs;
    if (!difference.plan.changes_nothing())
      co_await fail(error_kind::busy,
                    "'{}' was edited since it was read; reload it first, so that only one thing "
                    "changes at a time",
                    mount.config().source());
  }
  graph_state state = mount.config().state();
  change(state);
  reloading work(mount, {.state = &state, .before_commit = std::move(before_commit), .pid = pid});
  result<std::string> done = co_await as_result(work.run());
  if (!done)
    co_await fail(done.error().kind(), "{}; nothing was changed", done.error().message());
}

} // namespace

task<void> change_state_at_run_time(mount_state& mount, std::function<void(graph_state&)> change,
                                    u32 pid,
                                    std::function<task<void>(graph_state&)> before_commit) {
  const auto one_at_a_time = co_await mount.reloading.lock();
  co_await change_state_locked(mount, std::move(change), pid, std::move(before_commit));
}

task<void> change_backing_at_run_time(mount_state& mount, std::string overlay,
                                      std::optional<std::string> to, u32 pid) {
  const auto one_at_a_time = co_await mount.reloading.lock();
  (void)co_await mount.config().make_node_spec(overlay);
  if (to)
    (void)co_await mount.config().make_node_spec(*to);
  co_await change_state_locked(
      mount, [&](graph_state& state) { state.backing[overlay] = to; }, pid);
  co_await write_backing_name(mount, overlay, pid);
  co_await mount.settle_with_kernel();
}

task<std::string> describe_reload(mount_state& mount) {
  const graph_config next = co_await read_again(mount, mount.request.source, nullptr);
  const plan_of_now now = co_await plan_now(mount, next);
  const reload_plan& plan = now.plan;
  std::string text = plan.to_text();
  for (const root_difference& d : plan.roots) {
    const bool is_opened = d.fate == root_fate::added || d.has_new_nodes;
    if (!is_opened || d.fate == root_fate::removed)
      continue;
    const std::string problem = co_await try_to_open(mount, next, d.name);
    if (!problem.empty()) {
      text += fmt::format("would be refused: {}\n", problem);
      break;
    }
  }
  for (const result<>& ok : {check_openers(mount, next), check_passed_through(mount, next, plan),
                             now.clear_of_points, now.clear_of_jobs})
    if (!ok)
      text += fmt::format("would be refused: {}\n", ok.error().message());
  co_return text;
}

} // namespace bgfs
