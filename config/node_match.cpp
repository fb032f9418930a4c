// SPDX-License-Identifier: MIT
#include "config/node_match.h"

#include <algorithm>

namespace bgfs {
namespace {

struct option_changes {
  std::vector<std::string> fixed;   // cannot change while the node is open
  std::vector<std::string> movable; // perhaps can
};

template<class T>
void compare(option_changes& into, std::string_view name, const T& before, const T& after) {
  if (before != after)
    into.movable.emplace_back(name);
}

option_changes changes_of(const node& live, const node_spec& spec) {
  option_changes changes;
  for (const option& o : live.type().open_options->options)
    if (!live.given().is_same(spec.given, o.name))
      (o.is_mutable ? changes.movable : changes.fixed).emplace_back(o.name);
  const node_options& before = live.requested();
  const node_options& after = spec.generic;
  compare(changes, "read-only", before.is_read_only, after.is_read_only);
  compare(changes, "auto-read-only", before.is_auto_read_only, after.is_auto_read_only);
  compare(changes, "force-share", before.force_share, after.force_share);
  compare(changes, "discard", before.discard, after.discard);
  compare(changes, "detect-zeroes", before.detect_zeroes, after.detect_zeroes);
  compare(changes, "cache.direct", before.cache_direct, after.cache_direct);
  compare(changes, "cache.no-flush", before.cache_no_flush, after.cache_no_flush);
  compare(changes, "cache.writeback", before.cache_writeback, after.cache_writeback);
  // Whatever else every node has.
  if (changes.movable.empty() && before != after)
    changes.movable.emplace_back("options");
  return changes;
}

std::string quoted(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names)
    text += fmt::format("{}'{}'", text.empty() ? "" : ", ", name);
  return text;
}

bool is_live_slot(const node& n, std::string_view slot_name) {
  const auto slot = std::ranges::find(n.type().children, slot_name, &child_slot::name);
  return slot != n.type().children.end() &&
         ((slot->roles & role::backing) != 0 ||
          (n.is_filter() && (slot->roles & role::filtered) != 0));
}

} // namespace

judged_child node_matcher::match_child(const node* live, const child_spec& wanted) const {
  judged_child c;
  c.slot = wanted.slot;
  const edge* const known = live == nullptr ? nullptr : live->child(wanted.slot);
  node* const below = known == nullptr ? nullptr : &known->child();
  if (const auto* name = std::get_if<std::string>(&wanted.target)) {
    c.name = *name;
    const auto target = judged_.find(*name);
    const bool stays =
        target != judged_.end() && !target->second.is_opened_anew() && target->second.live == below;
    c.is_changed = !stays;
    return c;
  }
  const node_spec& definition = *std::get<std::unique_ptr<node_spec>>(wanted.target);
  const bool may_stay = below != nullptr && below->is_owned_by_parent() &&
                        (definition.node_name.empty() ? below->name().starts_with('#')
                                                      : below->name() == definition.node_name);
  c.in_place = std::make_unique<judged_node>(judge(may_stay ? below : nullptr, definition));
  c.is_changed = c.in_place->is_opened_anew();
  return c;
}

std::vector<judged_child> node_matcher::match_children(const node* live,
                                                       const node_spec& spec) const {
  std::vector<judged_child> children;
  for (const child_spec& wanted : spec.children)
    children.push_back(match_child(live, wanted));
  if (live == nullptr || !spec.has_no_backing)
    return children;
  for (const auto& e : live->children())
    if (e->has_role(role::backing)) {
      children.emplace_back();
      children.back().slot = e->name();
      children.back().is_removed = children.back().is_changed = true;
    }
  return children;
}

// Empty: it need not be.
std::string node_matcher::reason_to_replace(const node& live, const node_spec& spec,
                                            std::span<const judged_child> children) const {
  if (&live.type() != spec.type)
    return fmt::format("driver '{}' instead of '{}'", spec.type->name, live.type().name);
  if (live.loss() != nullptr)
    return "it was lost";
  if (forced_.contains(&live))
    return "what lies above is replaced, or it cannot change while it is open";
  for (const judged_child& c : children)
    if (c.is_changed && !is_live_slot(live, c.slot))
      return fmt::format("its '{}' is another", c.slot);
  const bool names_backing =
      std::ranges::any_of(spec.children, [](const child_spec& c) { return c.slot == "backing"; });
  if (!names_backing && !spec.has_no_backing && !live.has_backing_of_header() &&
      (live.backing() != nullptr || live.has_no_backing()))
    return "its header decides about its backing node again";
  return {};
}

judged_node node_matcher::judge(node* live, const node_spec& spec) const {
  judged_node j;
  j.live = live;
  j.spec = &spec;
  j.children = match_children(live, spec);
  if (live == nullptr)
    return j;
  j.reason = reason_to_replace(*live, spec, j.children);
  option_changes changes;
  if (j.reason.empty()) {
    changes = changes_of(*live, spec);
    if (!changes.fixed.empty())
      j.reason = quoted(changes.fixed) + " cannot change while it is open";
    const bool may_reopen = may_reopen_ && live->is_reopenable();
    if (j.reason.empty() && !changes.movable.empty() && !may_reopen)
      j.reason = quoted(changes.movable) + " changed";
  }
  if (!j.reason.empty()) {
    j.fate = node_fate::replaced;
    return j;
  }
  const auto other =
      std::ranges::find_if(j.children, [](const judged_child& c) { return c.is_changed; });
  if (!changes.movable.empty()) {
    j.fate = node_fate::reopened;
    j.reason = quoted(changes.movable) + " changed";
  } else if (other != j.children.end()) {
    j.fate = node_fate::rewired;
    j.reason = fmt::format("another '{}'", other->slot);
  } else {
    j.fate = node_fate::kept;
  }
  return j;
}

bool node_matcher::force_below(const judged_node& j) {
  bool has_added = false;
  for (const judged_child& c : j.children) {
    const judged_node* below = c.in_place.get();
    if (below == nullptr && !c.is_removed) {
      const auto named = judged_.find(c.name);
      below = named == judged_.end() ? nullptr : &named->second;
    }
    if (below == nullptr)
      continue;
    const bool is_unsettled =
        below->fate == node_fate::reopened || below->fate == node_fate::rewired;
    if (j.is_opened_anew() && is_unsettled)
      has_added = forced_.insert(below->live).second || has_added;
    if (c.in_place)
      has_added = force_below(*below) || has_added;
  }
  return has_added;
}

} // namespace bgfs
