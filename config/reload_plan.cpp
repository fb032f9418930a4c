// SPDX-License-Identifier: MIT
#include "config/reload_plan.h"

#include "config/export_schema.h"
#include "config/node_match.h"

#include <algorithm>
#include <map>
#include <set>

namespace bgfs {
namespace {

// "writable: true instead of false, mode: 0640 instead of nothing".
std::string describe_change(const export_spec& before, const export_spec& after) {
  const value old_keys = write_export(before);
  const value new_keys = write_export(after);
  std::string text;
  const auto add = [&](std::string_view key, const value* from, const value* to) {
    const auto shown = [](const value* v) { return v == nullptr ? "nothing" : to_json(*v); };
    if (shown(from) != shown(to))
      text += fmt::format("{}{}: {} instead of {}", text.empty() ? "" : ", ", key, shown(to),
                          shown(from));
  };
  for (const auto& [key, v] : *new_keys.as_map())
    add(key, old_keys.find(key), &v);
  for (const auto& [key, v] : *old_keys.as_map())
    if (new_keys.find(key) == nullptr)
      add(key, &v, nullptr);
  return text;
}

class planner {
public:
  planner(std::span<graph* const> live, const graph_config& next, std::span<const live_root> roots,
          plan_rules rules)
      : live_(live), next_(next), roots_(roots), rules_(rules) {
    for (const live_root& r : roots)
      root_by_name_.emplace(r.spec->name, &r);
  }

  result<reload_plan> run() {
    choose_wanted();
    BGFS_CHECK(read_specs());
    judge_all();
    for (const std::string& name : order_)
      emit_named(name);
    collect_kept();
    plan_roots();
    plan_leaving();
    BGFS_CHECK(check_references());
    return std::move(plan_);
  }

private:
  [[nodiscard]] const live_root* find_live(std::string_view name) const {
    const auto at = root_by_name_.find(name);
    return at == root_by_name_.end() ? nullptr : at->second;
  }

  [[nodiscard]] node* find_node(const std::string& name) const {
    for (const graph* g : live_)
      if (node* const found = g->find(name))
        return found;
    return nullptr;
  }

  // The roots that are open when the reload is done. One that is opened on demand and nobody has
  // asked for yet stays closed; a failed one is tried again afterwards.
  void choose_wanted() {
    for (std::size_t i = 0; i < next_.exports().size(); i++) {
      const export_spec& e = next_.exports()[i];
      const live_root* const known = find_live(e.name);
      const bool is_open = known != nullptr && known->attached != nullptr;
      const bool is_new = known == nullptr && e.open == open_mode::at_mount;
      if (is_open || is_new)
        wanted_.push_back(i);
    }
  }

  result<> read_specs() {
    // The strictest policy of the roots above decides what a header may name.
    for (const bool is_untrusted : {true, false}) {
      for (const std::size_t i : wanted_) {
        const export_spec& e = next_.exports()[i];
        if (e.is_untrusted != is_untrusted)
          continue;
        for (const std::string& name : next_.opening_order(e.node_name)) {
          if (specs_.contains(name))
            continue;
          BGFS_TRY(node_spec spec, next_.make_node_spec(name));
          spec.references = &next_.references(e);
          specs_.emplace(name, std::move(spec));
        }
      }
    }
    std::set<std::string> known;
    for (const std::size_t i : wanted_)
      for (const std::string& name : next_.opening_order(next_.exports()[i].node_name))
        if (known.insert(name).second)
          order_.push_back(name);
    return {};
  }

  // A node that is reopened below one that is opened anew would still have its old options while
  // that is opened; it is replaced, too, until nothing of that kind is left.
  void judge_all() {
    for (bool has_settled = false; !has_settled;) {
      judged_.clear();
      node_matcher matcher(judged_, forced_, rules_.may_reopen);
      for (const std::string& name : order_)
        judged_.emplace(name, matcher.judge(find_node(name), specs_.at(name)));
      has_settled = true;
      for (const auto& [name, j] : judged_)
        if (matcher.force_below(j))
          has_settled = false;
    }
  }

  void emit_named(const std::string& name) {
    judged_node& j = judged_.at(name);
    if (j.is_opened_anew()) {
      note(j, name);
      plan_.edit.opens.push_back(build(j, specs_.at(name)));
      return;
    }
    emit_kept(j);
  }

  void note(const judged_node& j, const std::string& name) {
    plan_.nodes.push_back({name, j.fate, j.reason});
  }

  // What is read-only and a job writes to for a while (graph/jobs/commit.h): it opens it as it was
  // when it has ended.
  [[nodiscard]] static bool is_written_by_job(const node& n) {
    return std::ranges::any_of(n.parents(), [](const edge* e) {
      return e->is_frozen() || (e->parent() != nullptr && !e->has_role(role::backing) &&
                                is_written_by_job(*e->parent()));
    });
  }
  [[nodiscard]] static bool differs_by_job(const judged_node& j) {
    if (j.fate != node_fate::reopened || !is_written_by_job(*j.live))
      return false;
    for (const option& o : j.live->type().open_options->options)
      if (!j.live->given().is_same(j.spec->given, o.name))
        return false;
    node_options then = j.live->requested();
    then.is_read_only = j.spec->generic.is_read_only;
    then.is_auto_read_only = j.spec->generic.is_auto_read_only;
    return then == j.spec->generic;
  }

  // A node that stays open: its own changes, and those below.
  void emit_kept(judged_node& j) {
    kept_.insert(j.live);
    if (differs_by_job(j)) {
      j.fate = node_fate::kept;
      j.reason.clear();
    }
    note(j, j.live->name());
    if (j.fate == node_fate::reopened)
      plan_.edit.reopens.push_back({j.live, j.spec->given, j.spec->generic});
    for (judged_child& c : j.children) {
      if (c.is_changed) {
        plan_.edit.children.push_back({j.live, c.slot, child_name(c, *j.spec)});
      } else if (c.in_place) {
        emit_kept(*c.in_place);
      }
    }
  }

  // The name of what a slot leads to afterwards; what is defined in place is opened for it.
  std::string child_name(judged_child& c, const node_spec& parent) {
    if (c.is_removed)
      return {};
    if (!c.in_place)
      return c.name;
    node_spec spec = build(*c.in_place, *c.in_place->spec);
    if (spec.node_name.empty())
      spec.node_name = live_.front()->make_auto_name();
    spec.is_owned_by_parent = true;
    spec.references = parent.references;
    std::string name = spec.node_name;
    note(*c.in_place, name);
    plan_.edit.opens.push_back(std::move(spec));
    return name;
  }

  // The definition of what is opened anew, over the children that stay.
  node_spec build(judged_node& j, const node_spec& spec) {
    node_spec made{.node_name = spec.node_name,
                   .type = spec.type,
                   .given = spec.given,
                   .generic = spec.generic,
                   .children = {},
                   .has_no_backing = spec.has_no_backing,
                   .references = spec.references,
                   .secrets = spec.secrets,
                   .mark = spec.mark};
    for (judged_child& c : j.children) {
      if (c.is_removed)
        continue;
      child_spec child{.slot = c.slot, .target = {}, .mark = spec.mark};
      if (!c.in_place) {
        child.target = c.name;
      } else if (c.in_place->is_opened_anew()) {
        note(*c.in_place, c.in_place->spec->node_name);
        child.target = std::make_unique<node_spec>(build(*c.in_place, *c.in_place->spec));
      } else {
        emit_kept(*c.in_place);
        child.target = c.in_place->live->name();
      }
      made.children.push_back(std::move(child));
    }
    return made;
  }

  // What the nodes that stay lead to stays, too: backing nodes that headers name.
  void collect_kept() {
    std::vector<node*> next(kept_.begin(), kept_.end());
    while (!next.empty()) {
      const node* const n = next.back();
      next.pop_back();
      for (const auto& e : n->children()) {
        const bool is_changed = std::ranges::any_of(plan_.edit.children, [&](const child_step& s) {
          return s.parent == n && s.slot == e->name();
        });
        if (!is_changed && kept_.insert(&e->child()).second)
          next.push_back(&e->child());
      }
    }
    settle_visitors();
    // They go when who opened them says so. What they look at may not leave while they do: its
    // blockers say who is in the way.
    for (const graph* g : live_)
      for (const auto& n : g->nodes())
        if (n->is_visitor() && !is_opened_anew(n->name()))
          keep_with_parts(*n);
  }
  [[nodiscard]] bool is_opened_anew(const std::string& name) const {
    const auto j = judged_.find(name);
    return j != judged_.end() && j->second.is_opened_anew();
  }
  void keep_with_parts(node& n) {
    kept_.insert(&n);
    for (const auto& e : n.children())
      if (e->child().is_owned_by_parent())
        keep_with_parts(e->child());
  }

  // kept_ is what the configuration needs.
  void settle_visitors() {
    std::set<const node*> beside;
    for (const root* r : rules_.beside)
      collect_below(r->top(), beside);
    for (const graph* g : live_)
      for (const auto& n : g->nodes()) {
        if (n->is_visitor() && judged_.contains(n->name()) && kept_.contains(n.get()))
          plan_.edit.adopts.push_back(n.get());
        if (!n->is_visitor() && !n->is_owned_by_parent() && beside.contains(n.get()) &&
            !judged_.contains(n->name()) && !kept_.contains(n.get()))
          plan_.edit.lets_go.push_back(n.get());
      }
    for (node* n : plan_.edit.lets_go)
      keep_with_parts(*n);
  }
  static void collect_below(const node& n, std::set<const node*>& found) {
    if (!found.insert(&n).second)
      return;
    for (const auto& e : n.children())
      collect_below(e->child(), found);
  }

  [[nodiscard]] bool has_new_nodes(std::string_view top) const {
    for (const std::string& name : next_.opening_order(top))
      if (judged_.contains(name) && judged_.at(name).fate != node_fate::kept)
        return true;
    return false;
  }

  void plan_roots() {
    for (std::size_t i = 0; i < next_.exports().size(); i++)
      plan_root(i);
    std::set<std::string_view> staying;
    for (const export_spec& e : next_.exports())
      staying.insert(e.name);
    for (const live_root& r : roots_) {
      if (staying.contains(r.spec->name))
        continue;
      plan_.roots.push_back({r.spec->name, root_fate::removed, {}, false});
      if (r.attached != nullptr)
        plan_.edit.releases.push_back(r.attached);
    }
  }

  void plan_root(std::size_t index) {
    const export_spec& e = next_.exports()[index];
    const live_root* const known = find_live(e.name);
    root_difference d;
    d.name = e.name;
    const permissions wanted = permissions_of(e, next_);
    if (known == nullptr) {
      d.fate = root_fate::added;
      if (e.open == open_mode::at_mount) {
        plan_.edit.attaches.push_back({"export '" + e.name + "'", e.node_name, wanted});
        plan_.attached_exports.push_back(index);
      }
    } else {
      d.reason = describe_change(*known->spec, e);
      d.has_new_nodes = known->attached != nullptr && has_new_nodes(e.node_name);
      if (!d.reason.empty() || d.has_new_nodes)
        d.fate = root_fate::changed;
      if (known->attached != nullptr) {
        const auto j = judged_.find(e.node_name);
        node& top = known->attached->top();
        const bool has_other_top =
            j->second.is_opened_anew() || j->second.live != &below_points(top);
        if (has_other_top || known->attached->as_edge().granted() != wanted)
          plan_.edit.roots.push_back(
              {known->attached, has_other_top ? e.node_name : top.name(), wanted});
      }
    }
    plan_.roots.push_back(std::move(d));
  }

  void plan_leaving() {
    std::set<std::string> replaced;
    for (const node_difference& d : plan_.nodes)
      if (d.fate == node_fate::replaced)
        replaced.insert(d.name);
    for (const graph* g : live_)
      for (const auto& n : g->nodes())
        if (!kept_.contains(n.get()))
          plan_to_leave(*n, replaced.contains(n->name()));
  }

  void plan_to_leave(node& n, bool is_replaced) {
    plan_.edit.leaving.push_back(&n);
    if (!is_replaced)
      plan_.nodes.push_back({n.name(), node_fate::closed, {}});
  }

  // The files that an image names beside its backing file.
  static result<> check_parts(const node& n, reference_resolver& references) {
    for (const auto& e : n.children()) {
      if (!e->is_named_by_image())
        continue;
      const named_child part{e->name(), {e->child().host_path(), {}}};
      if (result<node_spec> ok = references.resolve_part(n, part); !ok)
        return fail(std::move(ok).error());
    }
    return {};
  }

  // A stricter policy counts for what is open already.
  result<> check_references() {
    for (const auto& [name, j] : judged_) {
      if (j.live == nullptr || !kept_.contains(j.live))
        continue;
      BGFS_CHECK(check_parts(*j.live, *j.spec->references));
      for (const node* n = j.live; n != nullptr && n->has_backing_of_header() && n->is_active();
           n = n->backing() != nullptr ? &n->backing()->child() : nullptr) {
        const auto reference = n->instance().backing_reference();
        if (!reference)
          break;
        if (result<node_spec> ok = j.spec->references->resolve_backing(*n, *reference); !ok)
          return fail(std::move(ok).error());
        if (n->backing() != nullptr)
          BGFS_CHECK(check_parts(n->backing()->child(), *j.spec->references));
      }
    }
    return {};
  }

  std::span<graph* const> live_;
  const graph_config& next_;
  std::span<const live_root> roots_;
  std::map<std::string_view, const live_root*> root_by_name_;
  plan_rules rules_;
  std::vector<std::size_t> wanted_;
  std::map<std::string, node_spec> specs_;
  std::vector<std::string> order_; // of named nodes, children first
  std::map<std::string, judged_node> judged_;
  std::set<const node*> forced_;
  std::set<node*> kept_;
  reload_plan plan_;
};

} // namespace

std::string_view to_string(root_fate fate) {
  switch (fate) {
  case root_fate::kept:
    return "kept";
  case root_fate::changed:
    return "changed";
  case root_fate::added:
    return "added";
  case root_fate::removed:
    return "removed";
  }
  return "unknown";
}

std::string_view to_string(node_fate fate) {
  switch (fate) {
  case node_fate::kept:
    return "kept";
  case node_fate::rewired:
    return "rewired";
  case node_fate::reopened:
    return "reopened";
  case node_fate::replaced:
    return "replaced";
  case node_fate::opened:
    return "opened";
  case node_fate::closed:
    return "closed";
  }
  return "unknown";
}

node& below_points(node& top) {
  node* at = &top;
  while (at->is_visitor() && at->as_frozen_disk() != nullptr)
    at = &at->filtered_child()->child();
  return *at;
}

result<reload_plan> plan_reload(std::span<graph* const> live, const graph_config& next,
                                std::span<const live_root> roots, plan_rules rules) {
  return planner(live, next, roots, rules).run();
}

bool reload_plan::changes_nothing() const {
  return edit.is_empty() && std::ranges::all_of(roots, [](const root_difference& d) {
           return d.fate == root_fate::kept;
         });
}

std::string reload_plan::to_text() const {
  std::string text;
  std::size_t roots_kept = 0;
  std::size_t nodes_kept = 0;
  const auto add = [&](std::string_view what, const std::string& name, std::string_view fate,
                       const std::string& reason) {
    text += fmt::format("{} {}: {}{}{}\n", what, name, fate, reason.empty() ? "" : ": ", reason);
  };
  for (const root_difference& d : roots) {
    if (d.fate == root_fate::kept) {
      roots_kept++;
    } else {
      add("root", d.name, to_string(d.fate),
          d.reason.empty() && d.has_new_nodes ? "its nodes change" : d.reason);
    }
  }
  for (const node_difference& d : nodes) {
    if (d.fate == node_fate::kept) {
      nodes_kept++;
    } else if (!d.name.empty()) {
      add("node", d.name, to_string(d.fate), d.reason);
    }
  }
  return text + fmt::format("kept: {} roots, {} nodes\n", roots_kept, nodes_kept);
}

} // namespace bgfs
