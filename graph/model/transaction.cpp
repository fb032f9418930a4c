// SPDX-License-Identifier: MIT
#include "graph/model/transaction.h"

#include "graph/io/spawn.h"

#include <algorithm>
#include <ranges>

namespace bgfs {
namespace {

bool is_reachable(const node& from, const node& target) {
  if (&from == &target)
    return true;
  return std::ranges::any_of(from.children(),
                             [&](const auto& e) { return is_reachable(e->child(), target); });
}

const child_slot* slot_of(const node& n, std::string_view name) {
  const auto at = std::ranges::find(n.type().children, name, &child_slot::name);
  return at == n.type().children.end() ? nullptr : &*at;
}

result<> check_not_frozen(const edge& e) {
  if (!e.is_frozen())
    return {};
  return fail(error_kind::busy,
              "the frozen '{}' edge from {} to {} cannot be changed: a job uses it", e.name(),
              e.parent() != nullptr ? e.parent()->describe() : e.describe(), e.child().describe());
}

} // namespace

result<> graph_transaction::step(std::string_view name, const node* about) const {
  if (!graph_.edit_fault_)
    return {};
  const std::string what =
      about == nullptr ? std::string(name) : fmt::format("{} {}", name, about->name());
  if (std::optional<error> failure = graph_.edit_fault_(what))
    return fail(*std::move(failure));
  return {};
}

result<> graph_transaction::check() const {
  for (const child_step& s : edit_.children) {
    const child_slot* const slot = slot_of(*s.parent, s.slot);
    if (slot == nullptr && s.parent->child_keeper_ != nullptr) {
      BGFS_CHECK(check_kept_child(s));
      continue;
    }
    if (slot == nullptr)
      return fail(error_kind::invalid_argument, "{} has no child '{}'", s.parent->describe(),
                  s.slot);
    const bool is_live = (slot->roles & role::backing) != 0 ||
                         (s.parent->is_filter() && (slot->roles & role::filtered) != 0);
    if (!is_live)
      return fail(error_kind::unsupported,
                  "the '{}' of {} cannot be changed while it is open: it holds what the driver "
                  "keeps in memory",
                  s.slot, s.parent->describe());
    if (s.child.empty() && slot->is_required)
      return fail(error_kind::invalid_argument, "{} cannot be without its '{}'",
                  s.parent->describe(), s.slot);
    if (const edge* e = s.parent->child(s.slot))
      BGFS_CHECK(check_not_frozen(*e));
    BGFS_CHECK(s.parent->check_may_change());
  }
  for (const replace_step& s : edit_.replaces) {
    if (const std::string* reason = s.from->blockers().find(node_operation::replace))
      return fail(error_kind::busy, "{} cannot be replaced now: {}", s.from->describe(), *reason);
    for (const edge* e : s.from->parents())
      BGFS_CHECK(check_not_frozen(*e));
  }
  for (const node* n : edit_.leaving) {
    if (!n->blockers_.all().empty())
      return fail(error_kind::busy, "{} cannot be closed now: {}", n->describe(),
                  n->blockers_.all().front().reason);
    for (const edge* e : n->parents())
      BGFS_CHECK(check_not_frozen(*e));
    for (const auto& e : n->children())
      BGFS_CHECK(check_not_frozen(*e));
  }
  for (const reopen_step& s : edit_.reopens) {
    if (!s.target->is_reopenable())
      return fail(error_kind::unsupported, "{} cannot change its options while it is open",
                  s.target->describe());
    BGFS_CHECK(check_generic_options(s.generic, s.target->name()));
    BGFS_CHECK(s.target->check_may_change());
  }
  for (const root_step& s : edit_.roots)
    BGFS_CHECK(s.which->check_not_held());
  for (const root* r : edit_.releases)
    BGFS_CHECK(r->check_not_held());
  return {};
}

// One of any number: an empty name takes it away, and an empty slot is the next that is free.
result<> graph_transaction::check_kept_child(const child_step& s) const {
  const child_keeper& keeper = *s.parent->child_keeper_;
  const edge* const known = s.slot.empty() ? nullptr : s.parent->child(s.slot);
  if (s.slot.empty() && !s.child.empty()) {
    BGFS_TRY([[maybe_unused]] const child_slot free, keeper.slot_for_another());
    return {};
  }
  if (known == nullptr)
    return fail(error_kind::invalid_argument, "{} has no child '{}'", s.parent->describe(), s.slot);
  if (!s.child.empty())
    return fail(error_kind::invalid_argument,
                "the child '{}' of {} cannot become another; remove it, and add the other one",
                s.slot, s.parent->describe());
  BGFS_CHECK(check_not_frozen(*known));
  return keeper.may_remove(*known);
}

task<void> graph_transaction::prepare() {
  nodes_before_ = graph_.nodes_.size();
  co_await flush_affected();
  graph_.keeps_locks_ = true;
  co_await suspend_leaving();
  co_await open_new();
  co_await prepare_reopens();
  co_await move_edges();
  co_await step("permissions");
  co_await permissions_.prepare(graph_);
  co_await step("commit");
  if (edit_.before_commit)
    co_await edit_.before_commit();
}

// What fails to reach the disk fails here, where nothing was changed yet.
task<void> graph_transaction::flush_affected() {
  std::vector<node*> tops = edit_.leaving;
  for (const reopen_step& s : edit_.reopens)
    tops.push_back(s.target);
  for (const child_step& s : edit_.children)
    tops.push_back(s.parent);
  for (const replace_step& s : edit_.replaces)
    tops.push_back(s.from);
  for (const root* r : edit_.releases)
    tops.push_back(&r->top());
  for (node* n : tops) {
    if (!n->is_active())
      continue;
    co_await step("flush", n);
    co_await context(n->flush(), "flushing {}", n->describe());
  }
}

task<void> graph_transaction::suspend_leaving() {
  for (node* n : edit_.leaving)
    n->is_leaving_ = true;
  // Parents first: what a format writes back as it closes goes through its children.
  for (node* n : graph_.nodes_parents_first()) {
    if (!n->is_leaving_ || n->is_suspended_)
      continue;
    co_await step("suspend", n);
    suspended_.push_back(n); // also if it fails: then it may have been closed
    co_await context(graph_.suspend(*n), "closing {}", n->describe());
  }
}

task<void> graph_transaction::open_new() {
  for (node_spec& spec : edit_.opens) {
    co_await step("open");
    (void)co_await graph_.open_node(std::move(spec));
  }
}

task<void> graph_transaction::prepare_reopens() {
  for (const reopen_step& s : edit_.reopens) {
    node& n = *s.target;
    co_await step("reopen", &n);
    if (s.generic.is_read_only)
      co_await graph::store_bitmaps(n);
    co_await context(n.reopenable_->prepare_reopen(s.given, s.generic), "{}", n.describe());
    prepared_.push_back(&n);
  }
  // Only now: until all are prepared, what becomes read-only is still written back through.
  for (const reopen_step& s : edit_.reopens) {
    node& n = *s.target;
    save(n);
    n.given_ = s.given;
    n.generic_ = n.requested_ = s.generic;
  }
}

void graph_transaction::save(node& n) {
  saved_nodes_.push_back({&n, n.given_, n.generic_, n.requested_, n.backing_, n.primary_,
                          n.has_no_backing_, n.has_backing_of_header_});
}

result<node*> graph_transaction::target(std::string_view name, std::string_view wanted_by) const {
  node* const found = graph_.find(name);
  if (found == nullptr)
    return fail(error_kind::not_found, "{} needs node '{}', which is not open", wanted_by, name);
  return found;
}

void graph_transaction::lead(edge& e, node& to) {
  if (&e.child() == &to)
    return; // nothing changes for who looks from another thread, or observes the root
  moved_edges_.push_back({&e, &e.child()});
  e.lead_to(to);
}

result<> graph_transaction::move_edges() {
  for (const child_step& s : edit_.children) {
    BGFS_CHECK(step("child", s.parent));
    BGFS_CHECK(change_child(s));
  }
  for (const replace_step& s : edit_.replaces) {
    BGFS_CHECK(step("replace", s.from));
    BGFS_CHECK(replace(s));
  }
  BGFS_CHECK(move_roots());
  BGFS_CHECK(check_left());
  return check_loops();
}

result<> graph_transaction::change_child(const child_step& s) {
  node& parent = *s.parent;
  child_slot slot{s.slot, 0};
  if (const child_slot* const declared = slot_of(parent, s.slot)) {
    slot = *declared;
  } else if (!s.child.empty()) {
    BGFS_TRY(slot, parent.child_keeper_->slot_for_another());
  }
  edge* const known = parent.child(slot.name);
  node* to = nullptr;
  if (!s.child.empty()) {
    BGFS_TRY(to, target(s.child, parent.describe()));
    if (is_reachable(*to, parent))
      return fail(error_kind::invalid_argument, "making {} the '{}' of {} would create a loop",
                  to->describe(), slot.name, parent.describe());
    BGFS_CHECK(graph::check_may_attach(parent, slot.name, *to));
  }
  save(parent);
  edge* now = known;
  if (to == nullptr && known != nullptr) {
    const auto at = std::ranges::find(parent.children_, known, &std::unique_ptr<edge>::get);
    moved_edges_.push_back({known, &known->child()});
    known->leave_child();
    removed_edges_.push_back({&parent, at - parent.children_.begin(), std::move(*at)});
    parent.children_.erase(at);
    now = nullptr;
  } else if (known != nullptr) {
    lead(*known, *to);
  } else if (to != nullptr) {
    parent.children_.push_back(
        std::make_unique<edge>(std::string(slot.name), slot.roles, &parent, *to));
    now = parent.children_.back().get();
    added_edges_.push_back(now);
  }
  if ((slot.roles & role::backing) != 0) {
    parent.backing_ = now;
    parent.has_no_backing_ = now == nullptr;
    parent.has_backing_of_header_ = false;
  }
  return {};
}

result<> graph_transaction::replace(const replace_step& s) {
  BGFS_TRY(node* const to, target(s.to, s.from->describe()));
  const std::list<edge*> parents = s.from->parents_; // changes below
  for (edge* e : parents) {
    if (e->stays_at_node() || (e->parent() != nullptr && is_reachable(*to, *e->parent())))
      continue;
    if (e->parent() != nullptr)
      BGFS_CHECK(graph::check_may_attach(*e->parent(), e->name(), *to));
    lead(*e, *to);
  }
  return {};
}

result<> graph_transaction::move_roots() {
  for (root* r : edit_.releases) {
    BGFS_CHECK(step("release"));
    moved_edges_.push_back({r->edge_.get(), &r->top()});
    r->edge_->leave_child();
  }
  for (const root_step& s : edit_.roots) {
    BGFS_CHECK(step("root"));
    BGFS_TRY(node* const to, target(s.top, s.which->name()));
    lead(*s.which->edge_, *to);
    permissions_.want(*s.which->edge_, s.wanted);
  }
  for (const attach_step& s : edit_.attaches) {
    BGFS_CHECK(step("attach"));
    BGFS_TRY(node* const to, target(s.top, s.name));
    attached_.push_back(std::make_unique<root>(s.name, *to, s.observer));
    permissions_.want(*attached_.back()->edge_, s.wanted);
  }
  return {};
}

// Nothing that stays may lead to what leaves.
result<> graph_transaction::check_left() const {
  for (const node* n : edit_.leaving)
    for (const edge* e : n->parents())
      if (e->parent() == nullptr || !e->parent()->is_leaving_)
        return fail(error_kind::busy, "{} cannot be closed: {} uses it", n->describe(),
                    e->describe());
  return {};
}

result<> graph_transaction::check_loops() const {
  for (const auto& [which, before] : moved_edges_) {
    if (which->parent() == nullptr || which->child_ == nullptr)
      continue;
    if (is_reachable(which->child(), *which->parent()))
      return fail(error_kind::invalid_argument, "making {} the '{}' of {} would create a loop",
                  which->child().describe(), which->name(), which->parent()->describe());
  }
  return {};
}

void graph_transaction::undo_edges() {
  for (auto& r : attached_) {
    graph_.roots_.remove(r.get());
    r->edge_.reset();
  }
  attached_.clear();
  for (auto& [which, before] : std::views::reverse(moved_edges_))
    which->lead_to(*before);
  moved_edges_.clear();
  for (removed_edge& e : std::views::reverse(removed_edges_))
    e.parent->children_.insert(e.parent->children_.begin() + e.index, std::move(e.what));
  removed_edges_.clear();
  for (edge* e : added_edges_)
    std::erase_if(e->parent()->children_, [&](const auto& other) { return other.get() == e; });
  added_edges_.clear();
  for (saved_node& s : std::views::reverse(saved_nodes_)) {
    node& n = *s.which;
    n.given_ = std::move(s.given);
    n.generic_ = s.generic;
    n.requested_ = s.requested;
    n.backing_ = s.backing;
    n.primary_ = s.primary;
    n.has_no_backing_ = s.has_no_backing;
    n.has_backing_of_header_ = s.has_backing_of_header;
  }
  saved_nodes_.clear();
}

task<void> graph_transaction::roll_back() {
  permissions_.abort();
  undo_edges();
  for (node* n : std::views::reverse(prepared_))
    n->reopenable_->abort_reopen();
  co_await graph_.close_since(nodes_before_);
  for (node* n : edit_.leaving)
    n->is_leaving_ = false;
  for (node* n : std::views::reverse(suspended_)) // children first
    (void)co_await as_result(graph_.resume(*n));  // a lost node says so itself
  graph_.settle_permissions();
}

void graph_transaction::commit() {
  permissions_.commit();
  for (node* n : std::views::reverse(prepared_))
    n->reopenable_->commit_reopen();
  for (root* r : edit_.releases) {
    graph_.roots_.remove(r);
    r->edge_.reset();
  }
  for (const auto& [which, before] : moved_edges_)
    for (const root* r : graph_.roots_)
      if (r->edge_.get() == which && r->observer_ != nullptr) {
        r->observer_->medium_changed();
        if (r->length() != before->length())
          r->observer_->resized();
      }
  for (edge* e : added_edges_)
    if (child_keeper* const keeper = e->parent()->child_keeper_; keeper != nullptr)
      keeper->child_added(*e);
  for (const removed_edge& e : removed_edges_)
    if (child_keeper* const keeper = e.parent->child_keeper_; keeper != nullptr)
      keeper->child_removed(*e.what);
  for (std::size_t i = 0; i < attached_.size(); i++)
    if (edit_.attaches[i].made != nullptr)
      *edit_.attaches[i].made = std::move(attached_[i]);
  for (node* n : edit_.adopts)
    n->is_visitor_ = false;
  for (node* n : edit_.lets_go)
    n->is_visitor_ = true;
  refresh_changed();
  for (root* r : graph_.roots_)
    if (r->quiesced_ == 0)
      r->bind_lease(); // those that the edit attached
}

// Limits and lengths from the children up: what a node follows has its own by then.
void graph_transaction::refresh_changed() {
  const std::vector<node*> order = graph_.nodes_parents_first();
  for (const saved_node& s : saved_nodes_)
    if (s.backing != s.which->backing_ || s.which->backing_ != nullptr)
      s.which->driver_->backing_changed(s.which->backing_);
  for (node* n : std::views::reverse(order))
    if (n->is_active()) {
      n->refresh_limits();
      n->length_changed();
    }
}

task<edit_outcome> graph_transaction::finish() {
  edit_outcome outcome;
  const auto keep = [&](result<> r) {
    if (!r)
      outcome.warnings.push_back(std::move(r).error());
  };
  removed_edges_.clear();
  for (node* n : std::views::reverse(prepared_)) {
    result<> finished = co_await as_result(n->reopenable_->finish_reopen());
    if (!finished)
      finished.error().add_context(n->describe());
    keep(std::move(finished));
  }
  for (;;) {
    const auto next = std::ranges::find_if(
        graph_.nodes_, [](const auto& n) { return n->is_leaving_ && n->parents().empty(); });
    if (next == graph_.nodes_.end())
      break;
    keep(co_await as_result(graph_.dismantle(**next)));
  }
  graph_.settle_permissions();
  co_return outcome;
}

} // namespace bgfs
