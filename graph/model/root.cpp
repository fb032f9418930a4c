// SPDX-License-Identifier: MIT
#include "graph/io/spawn.h"
#include "graph/model/graph.h"
#include "graph/model/permission_plan.h"

#include <algorithm>
#include <cerrno>
#include <ranges>
#include <unordered_set>

namespace bgfs {

// A request on its way below a root; a drain waits until all have left.
struct root::passage {
  root& through;
  explicit passage(root& r) : through(r) { through.in_flight_++; }
  ~passage() {
    if (--through.in_flight_ == 0)
      through.idle_.wake_all();
  }
  passage(const passage&) = delete;
  passage& operator=(const passage&) = delete;
};

root::root(std::string name, node& top, root_observer* observer)
    : name_(std::move(name)), edge_(std::make_unique<edge>(name_, role::primary, nullptr, top)),
      observer_(observer) {
  top.owner_->roots_.push_back(this);
  if (top.owner_->lease_queues_ > 0) {
    lease_ = std::make_shared<lease>(top.owner_->lease_queues_);
    edge_->set_lease(lease_.get());
  }
}

root::~root() {
  BGFS_ASSERT(edge_ == nullptr, "a root was not released");
}

void root::bind_lease() {
  if (lease_ != nullptr && edge_ != nullptr && !lease_->is_bound())
    lease_->bind(*this);
}

task<void> root::end_lease() {
  if (lease_ == nullptr || !lease_->is_bound())
    co_return;
  lease_->close();
  co_await shielded(lease_->turn());
  if (lease_->is_bound())
    lease_->unbind();
}

bool root::may_write_in_place() const {
  return edge_ != nullptr && (edge_->granted().used & permission::write) != 0 &&
         top().generic().cache_writeback;
}

// What the request just made known; the next ones in its granules go the short way.
void root::learn(byte_range range) {
  constexpr u64 granules_max = 64;
  if (lease_ == nullptr || !lease_->is_open())
    return;
  const u64 end = std::min(range.end(), top().length());
  u64 at = range.offset;
  for (u64 i = 0; i < granules_max && at < end; i++) {
    const std::optional<resolved_extent> e = lease_->resolve(at);
    at = e ? std::max(e->guest.end(), at + 1)
           : align_down(at, lease_->granule()) + lease_->granule();
  }
}

task<std::unique_ptr<root>> graph::attach(std::string name, node& top, permissions wanted,
                                          root_observer* observer) {
  const async_mutex::guard editing = co_await edits_.lock();
  auto made = std::make_unique<root>(std::move(name), top, observer);
  permission_plan plan;
  plan.want(*made->edge_, wanted);
  result<> ok = plan.prepare(top);
  if (ok) {
    plan.commit();
    made->bind_lease();
    co_return made;
  }
  // What did not come to be needs no release.
  made->edge_.reset();
  roots_.remove(made.get());
  co_return fail(std::move(ok).error());
}

task<void> root::enter() {
  while (quiesced_ > 0)
    co_await resumed_.wait();
  co_await check_attached();
}

result<> root::check_attached() const {
  if (edge_ != nullptr)
    return {};
  return fail(error{error_kind::not_found, fmt::format("{} is gone", name_), ENODEV});
}

result<> root::check_may_write() const {
  if (edge_ == nullptr)
    return check_attached();
  if ((edge_->granted().used & permission::write) != 0)
    return {};
  return fail(error_kind::permission, "{} may not write: it was opened read-only", name_);
}

result<> root::check_not_held() const {
  if (held_by_.empty())
    return {};
  return fail(error_kind::busy, "{} cannot be changed now: {}", name_, held_by_);
}

task<void> root::read(u64 offset, std::span<std::byte> bytes) {
  if (quiesced_ > 0 || edge_ == nullptr)
    co_await enter();
  const passage inside(*this);
  co_await edge_->read(offset, bytes);
  learn({offset, bytes.size()});
}

task<void> root::write(u64 offset, std::span<const std::byte> bytes, write_flags flags) {
  co_await check_may_write();
  if (quiesced_ > 0 || edge_ == nullptr)
    co_await enter();
  const passage inside(*this);
  if (!top().generic().cache_writeback)
    flags |= write_flag::durable;
  co_await edge_->write(offset, bytes, flags);
  learn({offset, bytes.size()});
}

task<void> root::write_zeroes(byte_range range, write_flags flags) {
  co_await check_may_write();
  if (quiesced_ > 0 || edge_ == nullptr)
    co_await enter();
  const passage inside(*this);
  if (!top().generic().cache_writeback)
    flags |= write_flag::durable;
  co_await edge_->write_zeroes(range, flags);
}

task<void> root::discard(byte_range range) {
  co_await check_may_write();
  if (quiesced_ > 0 || edge_ == nullptr)
    co_await enter();
  const passage inside(*this);
  co_await edge_->discard(range);
}

task<void> root::flush() {
  if (quiesced_ > 0 || edge_ == nullptr)
    co_await enter();
  const passage inside(*this);
  co_await edge_->flush();
}

task<void> root::truncate(u64 length, truncate_options options) {
  co_await check_may_write();
  if ((edge_->granted().used & permission::resize) == 0)
    co_await fail(error_kind::permission, "{} may not change its length", name_);
  if (quiesced_ > 0 || edge_ == nullptr)
    co_await enter();
  const passage inside(*this);
  co_await edge_->truncate(length, options);
}

task<void> root::copy_to(byte_range range, root& to, u64 to_offset) {
  co_await to.check_may_write();
  while (quiesced_ > 0 || to.quiesced_ > 0) {
    co_await enter();
    co_await to.enter();
  }
  co_await check_attached();
  co_await to.check_attached();
  if (!to.top().generic().cache_writeback)
    co_await fail(error_kind::unsupported, "each write of {} is durable before it ends", to.name_);
  const passage reads(*this);
  const passage writes(to);
  co_await top().copy_to(range, *to.edge_, to_offset);
}

task<block_status> root::status_above(byte_range range, bool wants_zero) {
  if (quiesced_ > 0 || edge_ == nullptr)
    co_await enter();
  const passage inside(*this);
  block_status s = co_await top().status_above(range, nullptr, wants_zero);
  co_return s;
}

namespace {
task<void> wait_until_idle(const unsigned& in_flight, wait_queue& idle) {
  while (in_flight > 0)
    co_await idle.wait();
}
} // namespace

task<void> root::release() {
  if (in_flight_ > 0 && edge_ != nullptr) {
    const breakpoints_off passing(top());
    co_await shielded(wait_until_idle(in_flight_, idle_));
  }
  co_await shielded(wait_until_idle(in_flight_, idle_));
  if (edge_ == nullptr)
    co_return;
  graph& owner = *top().owner_;
  const async_mutex::guard editing = co_await shielded(owner.edits_.lock());
  if (edge_ == nullptr)
    co_return;
  co_await end_lease(); // not before: an edit under way binds, at its end, what is not bound
  node& below = top();
  owner.roots_.remove(this);
  edge_.reset();
  permission_plan plan; // giving up permissions cannot fail (M3)
  if (plan.prepare(below))
    plan.commit();
}

namespace {

// What leads to any of `nodes`, and they themselves.
std::unordered_set<const node*> reaching(const std::vector<node*>& nodes) {
  std::unordered_set<const node*> found(nodes.begin(), nodes.end());
  std::vector<const node*> next(nodes.begin(), nodes.end());
  while (!next.empty()) {
    const node* const n = next.back();
    next.pop_back();
    for (const edge* e : n->parents())
      if (e->parent() != nullptr && found.insert(e->parent()).second)
        next.push_back(e->parent());
  }
  return found;
}

} // namespace

namespace {
unsigned count_in_flight(const std::vector<root*>& roots) {
  unsigned count = 0;
  for (const root* r : roots)
    count += r->in_flight();
  return count;
}

std::string names_of(const std::vector<node*>& nodes) {
  std::string names;
  for (const node* n : nodes)
    names += (names.empty() ? "" : ",") + n->name();
  return names;
}
} // namespace

task<std::unique_ptr<graph::drained>> graph::drain(node& n) {
  return drain(std::vector<node*>{&n});
}

task<std::unique_ptr<graph::drained>> graph::drain(std::vector<node*> nodes,
                                                   std::vector<root*> more) {
  const std::unordered_set<const node*> above = reaching(nodes);
  const auto is_above_any = [&above](const node& top) { return above.contains(&top); };
  std::vector<root*> held;
  for (root* r : roots_)
    if (is_above_any(r->top()) || std::ranges::find(more, r) != more.end())
      held.push_back(r);
  for (root* r : held) {
    r->quiesced_++;
    if (r->lease_ != nullptr)
      r->lease_->close();
  }
  std::vector<node*> told;
  for (node* n : nodes_parents_first())
    if (n->is_active() && is_above_any(*n))
      told.push_back(n);
  trace<point::drain_begin>(
      home_.log(), [&] { return names_of(nodes); }, held.size(),
      [&] { return count_in_flight(held); });
  auto made = std::make_unique<drained>(*this, std::move(held), std::move(told));
  for (const root* r : made->roots_)
    made->passing_.emplace_back(r->top());
  for (root* r : made->roots_)
    co_await shielded(wait_until_idle(r->in_flight_, r->idle_));
  for (root* r : made->roots_) {
    if (r->lease_ == nullptr || !r->lease_->is_bound())
      continue;
    co_await shielded(r->lease_->turn());
    if (r->lease_->is_bound())
      r->lease_->unbind(); // what an edit moves is resolved anew
  }
  co_return made;
}

graph::drained::drained(graph& of, std::vector<root*> roots, std::vector<node*> nodes)
    : graph_(&of), roots_(std::move(roots)), nodes_(std::move(nodes)) {
  graph_->drains_.push_back(this);
  for (node* n : nodes_)
    if (n->drains_++ == 0 && n->quiescable_ != nullptr)
      n->quiescable_->begin_drain();
}

// None of those on the way down starts anything by itself once its parents have stopped.
std::vector<node*> graph::nodes_parents_first() const {
  std::vector<node*> order;
  std::unordered_set<const node*> visited;
  const auto visit = [&](const auto& self, node& n) -> void {
    if (!visited.insert(&n).second)
      return;
    for (const auto& e : n.children())
      self(self, e->child());
    order.push_back(&n);
  };
  for (const auto& n : nodes_)
    visit(visit, *n);
  std::ranges::reverse(order);
  return order;
}

task<void> graph::drained::release() {
  trace<point::drain_end>(graph_->home_.log(), roots_.size());
  for (node* n : std::views::reverse(nodes_))
    if (--n->drains_ == 0 && n->is_active() && n->quiescable_ != nullptr)
      n->quiescable_->end_drain();
  graph_->drains_.remove(this);
  passing_.clear();
  is_released_ = true;
  for (root* r : roots_) {
    if (--r->quiesced_ == 0) {
      r->bind_lease();
      r->resumed_.wake_all();
    }
    if (r->lease_ != nullptr)
      r->lease_->open();
  }
  roots_.clear();
  co_return;
}

} // namespace bgfs
