// SPDX-License-Identifier: MIT
#include "graph/jobs/commit.h"

#include "graph/io/with.h"
#include "graph/jobs/paced_copy.h"
#include "graph/jobs/rebase.h"
#include "graph/model/edit.h"

#include <algorithm>

namespace bgfs {

namespace {

// The edges of the chain from `top` down to `base`; none: it is not below.
std::vector<edge*> chain_between(node& top, const node& base) {
  std::vector<edge*> chain;
  for (node* n = &top; n != &base;) {
    edge* const next = n->is_filter() ? n->filtered_child() : n->backing();
    if (next == nullptr)
      return {};
    chain.push_back(next);
    n = &next->child();
  }
  return chain;
}

// The base and what holds its bytes: all that is below it but its own backing.
void collect_image(node& n, std::vector<node*>& into) {
  if (std::ranges::find(into, &n) != into.end())
    return;
  into.push_back(&n);
  for (const auto& e : n.children())
    if (!e->has_role(role::backing))
      collect_image(e->child(), into);
}

// An image of a chain is opened read-only; this one is written to for a while. No edit changes the
// chain above it meanwhile; of an empty one only the header is written.
class writable_base {
public:
  writable_base(node& base, std::vector<edge*> chain)
      : graph_(base.owner()), chain_(std::move(chain)) {
    std::vector<node*> image;
    collect_image(base, image);
    for (node* n : image)
      if (n->is_read_only())
        back_.push_back({.target = n, .given = n->given(), .generic = n->requested()});
    for (edge* e : chain_)
      e->freeze();
  }

  task<void> acquire() {
    if (back_.empty())
      co_return;
    if (!chain_.empty())
      chain_.back()->let_child_change(true); // the overlays hold all that is written
    graph_edit edit;
    edit.reopens = back_;
    for (reopen_step& s : edit.reopens)
      s.generic.is_read_only = s.generic.is_auto_read_only = false;
    (void)co_await graph_.apply(std::move(edit));
    is_reopened_ = true;
  }
  task<void> release() {
    if (!chain_.empty())
      chain_.back()->let_child_change(false);
    for (edge* e : chain_)
      e->thaw();
    if (!is_reopened_)
      co_return;
    graph_edit edit;
    edit.reopens = std::move(back_);
    (void)co_await graph_.apply(std::move(edit));
  }

private:
  graph& graph_;
  std::vector<edge*> chain_;
  std::vector<reopen_step> back_; // what was read-only, as it was
  bool is_reopened_ = false;
};

task<std::unique_ptr<writable_base>> hold_base(node& base, std::vector<edge*> chain) {
  co_return std::make_unique<writable_base>(base, std::move(chain));
}

task<void> lengthen(root& to, u64 length) {
  if (to.length() < length)
    co_await context(to.truncate(length, {.must_read_zero = true, .may_be_backing = true}),
                     "lengthening {} to the {} bytes of its overlay", to.top().describe(), length);
}

task<void> copy_at_once(root& to, const commit_request& request) {
  root_copy_target target(to, 0);
  copy_plan plan{.to = &target,
                 .looks_for_zeroes = false,
                 .bytes_per_second = request.bytes_per_second,
                 .progress = request.progress};
  plan.sources.push_back(
      {.from = request.top, .length = request.top->length(), .shared_base = request.base});
  co_await copy_disks(to.top().owner().home(), std::move(plan));
}

task<void> copy_at_pace(root& to, const commit_request& request) {
  whole_disk_backlog all(request.top->length());
  paced_copy copy(*request.control, *request.top, *request.base, to, all);
  co_await copy.pass();
}

task<void> copy_down(root& to, const commit_request& request) {
  co_await context(request.control != nullptr ? copy_at_pace(to, request)
                                              : copy_at_once(to, request),
                   partly_committed, to.top().describe());
  // The overlay may give up what it has only after this.
  co_await context(to.flush(), "flushing {}", to.top().describe());
}

using copy_function = std::function<task<void>(root& to)>;

task<void> copy_to_longer(root& to, u64 length, const copy_function& copy) {
  co_await lengthen(to, length);
  co_await copy(to);
}

task<void> write_through(writable_base& held, const commit_request& request,
                         const copy_function& copy) {
  co_await context(held.acquire(), "opening {} for writing", request.base->describe());
  const permissions wanted{permission::consistent_read | permission::write | permission::resize,
                           permission::all};
  node& base = *request.base;
  const u64 length = request.top->length();
  co_await with(base.owner().attach("committing", base, wanted),
                [&](root& to) { return copy_to_longer(to, length, copy); });
}

} // namespace

result<> check_commit(const commit_request& request) {
  if (!request.is_below_others)
    BGFS_CHECK(request.top->top().check_operation(node_operation::commit_source));
  return request.base->check_operation(node_operation::commit_target);
}

task<void> write_to_base(commit_request request, std::function<task<void>(root& to)> copy) {
  std::vector<edge*> chain = chain_between(request.top->top(), *request.base);
  BGFS_ASSERT(!chain.empty(), "the base of a commit is below its top");
  co_await with(hold_base(*request.base, std::move(chain)),
                [&](writable_base& held) { return write_through(held, request, copy); });
}

task<void> commit_layers(commit_request request) {
  co_await check_commit(request);
  co_await write_to_base(request, [&request](root& to) { return copy_down(to, request); });
}

namespace {
task<void> write_name(writable_base& held, node& overlay, image_reference name) {
  co_await context(held.acquire(), "opening {} for writing", overlay.describe());
  co_await name_backing(overlay, std::move(name));
}
} // namespace

task<void> change_backing_name(node& overlay, image_reference name) {
  co_await with(hold_base(overlay, {}),
                [&](writable_base& held) { return write_name(held, overlay, name); });
}

} // namespace bgfs
