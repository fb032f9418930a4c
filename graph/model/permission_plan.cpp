// SPDX-License-Identifier: MIT
#include "graph/model/permission_plan.h"

#include "graph/model/graph.h"

#include <algorithm>
#include <unordered_set>

namespace bgfs {

std::string describe(permission_set set) {
  static constexpr std::pair<permission_set, std::string_view> names[] = {
      {permission::consistent_read, "consistent read"},
      {permission::write, "write"},
      {permission::write_unchanged, "write unchanged"},
      {permission::resize, "resize"}};
  std::string text;
  for (const auto& [bit, name] : names) {
    if ((set & bit) == 0)
      continue;
    if (!text.empty())
      text += ", ";
    text += name;
  }
  return text.empty() ? "nothing" : text;
}

permissions permissions_by_role(child_role roles, bool parent_is_read_only, permissions parents) {
  using namespace permission;
  if ((roles & role::backing) != 0) {
    // The overlay reads it and copies from it; it may change only if our own users allow that.
    permissions p{static_cast<permission_set>(parents.used & consistent_read),
                  consistent_read | write_unchanged};
    if ((parents.shared & write) != 0)
      p.shared |= write | resize;
    return p;
  }
  permissions p{static_cast<permission_set>(parents.used & all),
                static_cast<permission_set>(parents.shared & all)};
  if ((roles & role::metadata) != 0) {
    p.used |= consistent_read;
    if (!parent_is_read_only)
      p.used |= write | resize;
    p.shared &= static_cast<permission_set>(~(write | resize));
  }
  if ((roles & role::data) != 0) {
    p.shared &= static_cast<permission_set>(~resize);
    if ((p.used & write_unchanged) != 0)
      p.used |= write;
    if ((p.used & write) != 0)
      p.used |= resize;
  }
  return p;
}

namespace {

// Nodes in an order in which each stands before all of its children.
class parents_first {
public:
  // `n` and what is below it.
  void add(node& n) {
    if (!visited_.insert(&n).second)
      return;
    for (const auto& e : n.children())
      add(e->child());
    children_first_.push_back(&n);
  }
  [[nodiscard]] std::vector<node*> take() {
    std::ranges::reverse(children_first_);
    return std::move(children_first_);
  }

private:
  std::vector<node*> children_first_;
  std::unordered_set<const node*> visited_;
};

} // namespace

void permission_plan::set(edge& e, permissions p) {
  changes_.push_back({&e, e.granted_});
  e.granted_ = p;
}

void permission_plan::want(edge& e, permissions wanted) {
  set(e, wanted);
}

result<> permission_plan::check_node(node& n) {
  for (const edge* a : n.parents()) {
    for (const edge* b : n.parents()) {
      if (a == b)
        continue;
      const auto refused = static_cast<permission_set>(b->granted().used & ~a->granted().shared);
      if (refused != 0)
        return fail(error_kind::busy,
                    "{} cannot use {} for '{}': {} does not share that; make one of them read-only",
                    b->describe(), n.describe(), describe(refused), a->describe());
    }
  }
  const permissions p = n.cumulative_permissions();
  if (n.is_read_only() && (p.used & (permission::write | permission::write_unchanged)) != 0)
    return fail(error_kind::permission, "{} is read-only; open it with 'read-only: false' to write",
                n.describe());
  return {};
}

// Drivers are told what their node's parents use and share together. During an edit they keep what
// they had beside it, so that no other process slips in while one node hands over to another.
result<> permission_plan::check_holder(node& n) {
  permissions wanted = n.cumulative_permissions();
  if (n.is_suspended_)
    wanted = {0, permission::all};
  // One that leaves must let in what comes, which may be the same file by another node.
  if (n.owner_->keeps_locks_ && !n.is_leaving_) {
    wanted.used |= n.locked_.used;
    wanted.shared &= n.locked_.shared;
  }
  BGFS_CHECK(n.permission_holder_->check_permissions(wanted));
  checked_.push_back({&n, wanted});
  return {};
}

result<> permission_plan::prepare(node& top) {
  parents_first order;
  order.add(top);
  return prepare_ordered(order.take());
}

result<> permission_plan::prepare(graph& all) {
  parents_first order;
  for (const auto& n : all.nodes())
    order.add(*n);
  return prepare_ordered(order.take());
}

result<> permission_plan::prepare_ordered(const std::vector<node*>& order) {
  for (node* n : order) {
    const permissions parents = n->cumulative_permissions();
    for (const auto& e : n->children()) {
      permissions p{0, permission::all}; // who is suspended needs nothing
      if (!n->is_suspended_)
        p = n->driver_ ? n->driver_->child_permissions(*e, parents)
                       : permissions_by_role(e->roles(), n->is_read_only(), parents);
      if (n->generic().force_share)
        p.shared = permission::all;
      if (e->child_may_change())
        p.shared |= permission::write | permission::resize;
      set(*e, p);
    }
  }
  for (node* n : order) {
    result<> ok = check_node(*n);
    if (ok && n->permission_holder_ != nullptr)
      ok = check_holder(*n);
    const trace_log& log = n->owner().home().log();
    if (!ok) {
      trace<point::permissions_refuse>(log, n->name(), outcome_of(ok));
      abort();
      return ok;
    }
    const permissions p = n->cumulative_permissions();
    trace<point::permissions_grant>(log, n->name(), names_of(p.used), names_of(p.shared));
  }
  return {};
}

void permission_plan::commit() noexcept {
  for (const told& t : checked_) {
    t.holder->permission_holder_->commit_permissions();
    t.holder->locked_ = t.what;
  }
  checked_.clear();
  changes_.clear();
}

void permission_plan::abort() noexcept {
  for (const told& t : checked_)
    t.holder->permission_holder_->abort_permissions();
  checked_.clear();
  for (auto at = changes_.rbegin(); at != changes_.rend(); ++at)
    at->which->granted_ = at->before;
  changes_.clear();
}

} // namespace bgfs
