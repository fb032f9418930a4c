// SPDX-License-Identifier: MIT
#include "graph/model/graph.h"

#include "graph/io/file.h"
#include "graph/io/spawn.h"
#include "graph/model/permission_plan.h"

#include <algorithm>

namespace bgfs {
namespace {

// Layers of one chain; a header that names its own overlay would otherwise open files for ever.
constexpr std::size_t opening_depth_max = 256;

// Who decides about headers, and what options may name, while a definition and what it leads to is
// opened.
template<class Pointer>
struct current {
  Pointer& now;
  const Pointer before;
  current(Pointer& p, const Pointer& wanted) : now(p), before(p) {
    if (wanted != nullptr)
      now = wanted;
  }
  ~current() { now = before; }
  current(const current&) = delete;
  current& operator=(const current&) = delete;
};

// The names of nodes being opened, last in first out.
struct opening_mark {
  std::vector<const node*>& stack;
  opening_mark(std::vector<const node*>& s, const node& n) : stack(s) { stack.push_back(&n); }
  ~opening_mark() { stack.pop_back(); }
  opening_mark(const opening_mark&) = delete;
  opening_mark& operator=(const opening_mark&) = delete;
};

} // namespace

graph::graph(loop& home, const registry& drivers, reference_resolver* references)
    : home_(home), drivers_(drivers), references_(references),
      auto_names_(std::make_shared<std::atomic<unsigned>>(0)) {}

graph::graph(loop& home, const graph& like)
    : home_(home), drivers_(like.drivers_), references_(like.references_), secrets_(like.secrets_),
      events_(like.events_), lease_queues_(like.lease_queues_), auto_names_(like.auto_names_) {}

graph::~graph() {
  BGFS_ASSERT(roots_.empty(), "M1: a graph outlives its roots");
  BGFS_ASSERT(nodes_.empty(), "M1: close_all comes before the end of a graph");
}

node* graph::find(std::string_view name) const {
  const auto [first, last] = by_name_.equal_range(name);
  for (auto at = first; at != last; ++at)
    if (!at->second->is_leaving_)
      return at->second;
  return nullptr;
}

void graph::add_name(node& n) {
  by_name_.emplace(n.name(), &n);
}

void graph::remove_name(node& n) {
  auto [at, last] = by_name_.equal_range(n.name());
  while (at != last && at->second != &n)
    ++at;
  BGFS_ASSERT(at != last, "every node is known by its name");
  by_name_.erase(at);
}

std::string graph::make_auto_name() {
  std::string name;
  do {
    name = fmt::format("#block{:03}", auto_names_->fetch_add(1));
  } while (find(name) != nullptr);
  return name;
}

task<node*> graph::open(node_spec spec) {
  const async_mutex::guard editing = co_await edits_.lock();
  const std::size_t before = nodes_.size();
  result<node*> opened = co_await as_result(open_node(std::move(spec)));
  if (opened)
    co_return *opened;
  co_await close_since(before);
  co_return fail(std::move(opened).error());
}

// Errors of a rollback are dropped: the first error is the one to report.
task<void> graph::close_since(std::size_t count) {
  while (nodes_.size() > count) {
    const auto top =
        std::ranges::find_if(std::next(nodes_.begin(), static_cast<i64>(count)), nodes_.end(),
                             [](auto& n) { return n->parents().empty(); });
    BGFS_ASSERT(top != nodes_.end(), "M6: the graph has no cycles");
    result<> gone = co_await as_result(dismantle(**top));
    (void)gone;
  }
}

task<node*> graph::open_node(node_spec spec) {
  if (spec.node_name.empty())
    spec.node_name = make_auto_name();
  if (find(spec.node_name) != nullptr)
    co_return fail(error_kind::invalid_argument, "{}there is a node '{}' already",
                   spec.mark.prefix(), spec.node_name);
  if (opening_.size() >= opening_depth_max)
    co_return fail(error_kind::invalid_image, "more than {} images lie below one another at '{}'",
                   opening_depth_max, spec.node_name);
  co_await check_generic_options(spec.generic, spec.node_name);
  auto made = std::make_unique<node>(*this, spec.node_name, *spec.type, std::move(spec.given),
                                     spec.generic);
  node& n = *made;
  n.is_owned_by_parent_ = spec.is_owned_by_parent;
  n.is_visitor_ = spec.is_visitor;
  nodes_.push_back(std::move(made));
  add_name(n);
  const opening_mark mark(opening_, n);
  const current following(references_, spec.references);
  const current naming(secrets_, spec.secrets);
  n.secrets_ = secrets_;
  n.is_info_only_ = spec.is_info_only;
  std::vector<child_spec> backing;
  for (child_spec& child : spec.children) {
    if (child.slot == "backing") {
      backing.push_back(std::move(child));
      continue;
    }
    co_await open_child(n, std::move(child));
  }
  co_await check_loop(n);
  n.has_no_backing_ = spec.has_no_backing;
  if (!spec.is_info_only)
    co_await open_named_children(n);
  co_await open_driver(n);
  if (!spec.has_no_backing && backing.empty())
    co_await open_backing(n);
  for (child_spec& child : backing)
    co_await open_child(n, std::move(child));
  if (n.backing_ != nullptr) {
    n.driver_->backing_changed(n.backing_);
    n.refresh_limits();
  }
  co_return &n;
}

task<void> graph::open_child(node& n, child_spec child) {
  const auto slot = std::ranges::find(n.type().children, child.slot, &child_slot::name);
  BGFS_ASSERT(slot != n.type().children.end(), "the schema has checked the names of children");
  node* target = nullptr;
  if (auto* definition = std::get_if<std::unique_ptr<node_spec>>(&child.target)) {
    target = co_await open_node(std::move(**definition));
    target->is_owned_by_parent_ = true;
  } else {
    const std::string& name = std::get<std::string>(child.target);
    target = find(name);
    if (target == nullptr)
      co_await fail(error_kind::not_found, "{}node '{}' needs '{}' as its '{}', which is not open",
                    child.mark.prefix(), n.name(), name, child.slot);
  }
  co_await add_edge(n, child.slot, slot->roles, *target);
}

// The edge is attached with the permissions its role demands, so that a conflict or a lock held by
// another process is found before the driver touches anything.
// Reference section 1.3, supports_zoned_children.
result<> graph::check_may_attach(const node& parent, std::string_view slot, const node& child) {
  if (child.limits().zones.model == zone_model::none)
    return {};
  if (parent.type().supports_zoned_children) // before it is open it looks for itself
    return parent.is_open() ? parent.instance().check_zoned_child(child) : result<>();
  return fail(error_kind::unsupported,
              "{} cannot have {} as its '{}': that is a zoned device ({}), and driver '{}' writes "
              "in any order; use one that keeps zones, such as raw",
              parent.describe(), child.describe(), slot, to_string(child.limits().zones.model),
              parent.type().name);
}

result<> graph::add_edge(node& parent, std::string name, child_role roles, node& child) {
  BGFS_CHECK(check_may_attach(parent, name, child));
  auto added = std::make_unique<edge>(std::move(name), roles, &parent, child);
  edge* e = added.get();
  parent.children_.push_back(std::move(added));
  permission_plan plan;
  if (result<> ok = plan.prepare(parent); !ok) {
    parent.children_.pop_back();
    return ok;
  }
  plan.commit();
  if ((roles & role::backing) != 0)
    parent.backing_ = e;
  if ((roles & (role::primary | role::filtered)) != 0)
    parent.primary_ = e;
  return {};
}

result<> graph::check_loop(const node& n) const {
  const std::string path = n.host_path();
  if (path.empty())
    return {};
  for (const node* outer : opening_) {
    if (outer == &n || !outer->type().supports_backing)
      continue;
    if (is_same_file(path, outer->host_path()))
      return fail(error_kind::invalid_image,
                  "the backing chain loops: '{}' is below itself; give the overlay another "
                  "'backing', or 'backing: null'",
                  path);
  }
  return {};
}

// What the graph declares counts more than what the header says.
task<void> graph::open_named_children(node& n) {
  if (n.type().named_children == nullptr || n.primary_ == nullptr)
    co_return;
  const std::vector<named_child> named =
      co_await context(n.type().named_children(*n.primary_), "{}", n.describe());
  for (const named_child& part : named) {
    if (n.child(part.slot) != nullptr)
      continue;
    if (references_ == nullptr)
      co_await fail(error_kind::permission,
                    "{} names '{}' as its '{}', and nothing allows following it", n.describe(),
                    part.where.filename, part.slot);
    node_spec spec = co_await references_->resolve_part(n, part);
    node* below =
        co_await context(open_node(std::move(spec)), "'{}' of {}", part.slot, n.describe());
    below->is_owned_by_parent_ = true;
    const auto slot = std::ranges::find(n.type().children, part.slot, &child_slot::name);
    BGFS_ASSERT(slot != n.type().children.end(), "who names a child has a slot for it");
    co_await add_edge(n, std::string(slot->name), slot->roles, *below);
    n.children_.back()->is_named_by_image_ = true;
  }
}

task<void> graph::open_driver(node& n) {
  std::vector<edge*> children;
  for (const child_slot& slot : n.type().children)
    children.push_back((slot.roles & role::backing) != 0 ? nullptr : n.child(slot.name));
  n.driver_ = co_await context(n.type().open({.home = home_,
                                              .self = n,
                                              .given = n.given(),
                                              .is_read_only = n.is_read_only(),
                                              .children = children,
                                              .drivers = drivers_,
                                              .secrets = n.secrets_.get(),
                                              .is_info_only = n.is_info_only_}),
                               "{}", n.describe());
  n.find_faces();
  n.refresh_limits();
  n.refresh_length();
  co_await adopt_bitmaps(n);
  permission_plan plan; // the open driver may know better than the role what it needs
  co_await plan.prepare(n);
  plan.commit();
  trace<point::node_open>(home_.log(), n.name(), n.type().name, n.is_read_only(), n.length());
}

task<void> graph::open_backing(node& n) {
  const auto slot_of_backing = [&] {
    const auto slot = std::ranges::find_if(
        n.type().children, [](const child_slot& s) { return (s.roles & role::backing) != 0; });
    BGFS_ASSERT(slot != n.type().children.end(), "who has a backing node has a slot for it");
    return *slot;
  };
  if (const node* like = n.driver_->shares_backing_with()) {
    if (like->backing_ == nullptr)
      co_return;
    const child_slot slot = slot_of_backing();
    co_await add_edge(n, std::string(slot.name), slot.roles, like->backing_->child());
    n.has_backing_of_header_ = like->has_backing_of_header_;
    co_return;
  }
  std::optional<image_reference> reference = n.driver_->backing_reference();
  if (!reference)
    co_return;
  if (references_ == nullptr)
    co_await fail(error_kind::permission,
                  "{} names the backing file '{}', and nothing allows following it", n.describe(),
                  reference->filename);
  node_spec spec = co_await references_->resolve_backing(n, *reference);
  node* below = co_await context(open_node(std::move(spec)), "backing of {}", n.describe());
  below->is_owned_by_parent_ = true;
  const child_slot slot = slot_of_backing();
  co_await add_edge(n, std::string(slot.name), slot.roles, *below);
  n.has_backing_of_header_ = true;
}

// Closes the driver, then lets go of the children, which lowers the permissions they hold.
task<void> graph::dismantle(node& n) {
  BGFS_ASSERT(n.parents_.empty(), "M1: parents go first");
  result<> outcome;
  if (n.driver_ && !n.is_driver_closed_) {
    const breakpoints_off passing(n);
    co_await n.requests_.wait_idle();
    if (n.is_active())
      outcome = co_await as_result(n.flush());
    result<> stored = co_await as_result(store_bitmaps(n));
    if (outcome)
      outcome = std::move(stored);
    result<> closed = co_await as_result(n.driver_->close());
    if (outcome)
      outcome = std::move(closed);
    trace<point::node_close>(home_.log(), n.name(), outcome_of(outcome));
  }
  n.backing_ = n.primary_ = nullptr;
  n.driver_.reset();
  std::vector<node*> orphans;
  while (!n.children_.empty()) {
    node& child = n.children_.back()->child();
    n.children_.pop_back();
    permission_plan plan; // giving up permissions cannot fail (M3)
    if (plan.prepare(child))
      plan.commit();
    if (child.parents_.empty() && child.is_owned_by_parent_)
      orphans.push_back(&child);
  }
  for (drained* d : drains_)
    std::erase(d->nodes_, &n);
  remove_name(n);
  std::erase_if(nodes_, [&](const auto& other) { return other.get() == &n; });
  for (node* orphan : orphans) {
    result<> closed = co_await as_result(dismantle(*orphan));
    if (outcome)
      outcome = std::move(closed);
  }
  co_await std::move(outcome);
}

task<void> graph::close_unlocked(node& n) {
  if (!n.parents_.empty())
    co_await fail(error_kind::busy, "{} is in use by {}", n.describe(),
                  n.parents_.front()->describe());
  co_await dismantle(n);
}

task<void> graph::close(node& n) {
  const async_mutex::guard editing = co_await edits_.lock();
  co_await shielded(close_unlocked(n));
}

// After an edit locks follow the permissions again. Giving up cannot fail (M3).
void graph::settle_permissions() {
  keeps_locks_ = false;
  permission_plan plan;
  if (plan.prepare(*this))
    plan.commit();
}

task<void> graph::close_all() {
  const async_mutex::guard editing = co_await edits_.lock();
  BGFS_ASSERT(roots_.empty(), "M1: roots are released before close_all");
  std::optional<error> first;
  while (!nodes_.empty()) {
    const auto top =
        std::ranges::find_if(nodes_, [](const auto& n) { return n->parents().empty(); });
    BGFS_ASSERT(top != nodes_.end(), "M6: the graph has no cycles");
    result<> closed = co_await as_result(dismantle(**top));
    if (!closed && !first)
      first = std::move(closed).error();
  }
  if (first)
    co_await fail(*std::move(first));
}

void graph::tell_resized(node& n) {
  for (root* r : roots_) {
    if (&r->top() != &n)
      continue;
    if (r->lease_ != nullptr)
      r->lease_->length_changed();
    if (r->observer_ != nullptr)
      r->observer_->resized();
  }
}

} // namespace bgfs
