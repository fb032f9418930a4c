// SPDX-License-Identifier: MIT
// Taking a node out of service and back, without taking it out of the graph: for edits, which open
// its image through other nodes meanwhile, and for handing an image to another process.
#include "graph/io/spawn.h"
#include "graph/io/with.h"
#include "graph/model/graph.h"
#include "graph/model/permission_plan.h"

#include <algorithm>

namespace bgfs {

// Everything is on disk and the locks are given up when it returns, also when it fails: a driver
// whose close has failed cannot be used any more, and `resume` opens it anew.
task<void> graph::suspend(node& n) {
  if (n.is_suspended_)
    co_return;
  co_await n.requests_.wait_idle();
  result<> outcome = co_await as_result(n.flush());
  // A protocol has nothing in memory that another opener could make stale but its length, and a
  // descriptor kept open is one that need not be opened again if the edit fails.
  const bool is_closing = n.type().kind == driver_kind::format || n.is_deactivated_;
  if (outcome && is_closing)
    outcome = co_await as_result(store_bitmaps(n));
  if (outcome && is_closing) {
    outcome = co_await as_result(n.driver_->close());
    n.is_driver_closed_ = true;
    n.bitmaps_.drop_persistent(); // others may change them; they are read anew
  }
  if (outcome || n.is_driver_closed_) {
    n.is_suspended_ = true;
    permission_plan plan; // giving up permissions cannot fail (M3)
    if (plan.prepare(n))
      plan.commit();
  }
  co_await std::move(outcome);
}

// On failure the node is lost: it stays, and every request is told why.
task<void> graph::resume(node& n) {
  if (!n.is_suspended_)
    co_return;
  n.is_suspended_ = false;
  n.forget_status(); // others may have had the image
  n.loss_.reset();
  result<> outcome;
  if (n.is_driver_closed_) {
    n.generic_ = n.requested_;
    permission_plan plan;
    outcome = plan.prepare(n);
    plan.commit();
    if (outcome)
      outcome = co_await as_result(open_driver(n));
    if (outcome)
      n.is_driver_closed_ = false;
    if (outcome)
      n.mark_dirty({0, n.length_}); // nobody recorded what others wrote meanwhile
    if (outcome && n.backing_ != nullptr) {
      n.driver_->backing_changed(n.backing_);
      n.refresh_limits();
    }
  } else {
    permission_plan plan;
    outcome = plan.prepare(n);
    plan.commit();
  }
  if (outcome)
    co_return;
  n.is_suspended_ = true;
  n.loss_ = outcome.error();
  n.loss_->add_context(fmt::format("{} could not be opened again", n.describe()));
  permission_plan plan; // giving up permissions cannot fail (M3)
  if (plan.prepare(n))
    plan.commit();
  co_await fail(std::move(outcome).error());
}

namespace {

// `n`, and what only it uses, parents first.
void collect_deactivated(node& n, std::vector<node*>& into) {
  into.push_back(&n);
  for (const auto& e : n.children()) {
    node& child = e->child();
    const bool is_in_use = std::ranges::any_of(child.parents(), [&](const edge* p) {
      return p->parent() == nullptr || std::ranges::find(into, p->parent()) == into.end();
    });
    if (!is_in_use && std::ranges::find(into, &child) == into.end())
      collect_deactivated(child, into);
  }
}

result<> check_may_deactivate(const node& n) {
  for (const edge* parent : n.parents())
    if ((parent->granted().used & (permission::write | permission::resize)) != 0)
      return fail(error_kind::permission,
                  "{} cannot be deactivated: {} writes to it; make that read-only or release it "
                  "first",
                  n.describe(), parent->describe());
  return {};
}

} // namespace

task<void> graph::deactivate_drained(node& n) {
  std::vector<node*> all;
  collect_deactivated(n, all);
  for (const node* one : all)
    co_await one->check_may_change();
  std::vector<node*> done;
  result<> outcome;
  for (node* one : all) {
    if (one->is_suspended_)
      continue;
    one->is_deactivated_ = true; // before: a protocol is closed for it
    outcome = co_await as_result(suspend(*one));
    if (!outcome)
      break;
    done.push_back(one);
  }
  if (outcome)
    co_return;
  for (node* one : all)
    one->is_deactivated_ = false;
  std::ranges::reverse(done);
  for (node* one : done) // what cannot be opened again says so itself
    (void)co_await as_result(resume(*one));
  co_await fail(std::move(outcome).error());
}

task<void> graph::deactivate(node& n) {
  const async_mutex::guard editing = co_await edits_.lock();
  if (n.is_deactivated_)
    co_return;
  co_await check_may_deactivate(n);
  co_await with(drain(n), [&](drained&) { return deactivate_drained(n); });
}

task<void> graph::activate_drained(node& n) {
  // Children first: a format reads its image when it is opened.
  for (const auto& e : n.children())
    if (e->child().is_deactivated_)
      co_await activate_drained(e->child());
  n.is_deactivated_ = false;
  result<> outcome = co_await as_result(resume(n));
  if (!outcome) {
    n.is_deactivated_ = true; // may be tried again
    n.loss_.reset();
    co_await fail(std::move(outcome).error());
  }
  n.length_changed();
}

task<void> graph::activate(node& n) {
  const async_mutex::guard editing = co_await edits_.lock();
  if (!n.is_deactivated_)
    co_return;
  co_await with(drain(n), [&](drained&) { return activate_drained(n); });
}

} // namespace bgfs
