// SPDX-License-Identifier: MIT
#include "graph/jobs/commit_in_use.h"

#include "graph/io/with.h"
#include "graph/jobs/blocked_node.h"
#include "graph/jobs/paced_copy.h"
#include "graph/model/edit.h"

namespace bgfs {
namespace {

constexpr std::string_view watch_name = "#commit"; // which no user can choose for a bitmap
// What requests wait for in the last step, besides two flushes.
constexpr u64 last_step_length_max = 8 * MiB;
// Of the first slice that holds writers back.
constexpr u64 pressing_length_first = 4 * MiB;

constexpr node_operation_set forbidden_to_overlay =
    all_node_operations & ~bit(node_operation::dirty_bitmap) & ~bit(node_operation::dataplane);
// It is reopened by the commit itself.
constexpr node_operation_set forbidden_to_base =
    forbidden_to_overlay & ~bit(node_operation::change) & ~bit(node_operation::replace);

// Marks what is written to a node, by a dirty bitmap, which also closes the way by lease and keeps
// the length as it is.
class write_watch {
public:
  write_watch(node& of, dirty_bitmap& which, const job& by)
      : of_(of), hold_(std::make_unique<bitmap_hold>(of, which, fmt::format("job '{}'", by.id()))) {
  }

  [[nodiscard]] dirty_bitmap& bitmap() const { return hold_->bitmap(); }
  task<void> release() {
    hold_.reset();
    std::vector<bitmap_change> changes;
    changes.push_back(
        {.what = bitmap_change::kind::remove, .where = &of_, .name = std::string(watch_name)});
    co_await of_.owner().change_bitmaps(std::move(changes));
  }

private:
  node& of_;
  std::unique_ptr<bitmap_hold> hold_;
};

// Who has the overlay alone lets nobody write below it, either. For the commit it does.
class shared_writing {
public:
  explicit shared_writing(root& top) : top_(top), before_(top.as_edge().granted()) {}

  task<void> acquire() {
    permissions wider = before_;
    wider.shared |= permission::write | permission::resize;
    co_await set(wider);
  }
  task<void> release() { co_await set(before_); }

private:
  task<void> set(permissions wanted) {
    graph_edit edit;
    edit.roots.push_back({.which = &top_, .top = top_.top().name(), .wanted = wanted});
    (void)co_await top_.top().owner().apply(std::move(edit));
  }
  root& top_;
  const permissions before_;
};

task<std::unique_ptr<shared_writing>> share_writing(root& top) {
  auto made = std::make_unique<shared_writing>(top);
  co_await made->acquire();
  co_return made;
}

task<std::unique_ptr<write_watch>> watch(node& overlay, const job& by) {
  std::vector<bitmap_change> changes;
  changes.push_back(
      {.what = bitmap_change::kind::add, .where = &overlay, .name = std::string(watch_name)});
  co_await context(overlay.owner().change_bitmaps(std::move(changes)),
                   "watching what is written to {}", overlay.describe());
  dirty_bitmap* const made = overlay.bitmaps().find(watch_name);
  BGFS_ASSERT(made != nullptr, "nobody was there between");
  co_return std::make_unique<write_watch>(overlay, *made, by);
}

// One commit, while the watch is kept.
class live_commit {
public:
  live_commit(write_watch& watched, const commit_request& request, node& overlay)
      : watched_(watched), request_(request), overlay_(overlay) {}

  task<void> run() {
    co_await write_to_base(request_, [this](root& to) { return copy_and_empty(to); });
    co_await request_.top->flush();
  }

private:
  task<void> copy_and_empty(root& to) {
    dirty_backlog backlog(watched_.bitmap());
    paced_copy copy(*request_.control, *request_.top, *request_.base, to, backlog);
    co_await context(converge(to, copy, backlog), partly_committed, to.top().describe());
    co_await request_.control->begin_last_step();
    co_await with(overlay_.owner().drain(overlay_),
                  [&](graph::drained&) { return last_step(to, copy); });
  }

  // Returns when what is left is little.
  task<void> converge(root& to, paced_copy& copy, const copy_backlog& backlog) {
    u64 before = backlog.bytes();
    u64 pressing = 0; // the length of slices that hold writers back; 0: none do
    for (;;) {
      if (pressing != 0 && !copy.is_limited())
        co_await copy.pass_pressing(overlay_, pressing);
      else
        co_await copy.pass();
      const u64 left = backlog.bytes();
      if (left > last_step_length_max) {
        // In the end one slice has room for all that there is.
        if (left > before / 2)
          pressing = pressing == 0 ? pressing_length_first : pressing * 2;
        before = left;
        continue;
      }
      // So that the flush of the last step finds little.
      co_await context(to.flush(), "flushing {}", to.top().describe());
      const bool is_told = co_await request_.control->may_complete();
      if (is_told && backlog.bytes() <= last_step_length_max)
        co_return;
    }
  }

  // No request is under way above the overlay, and none begins. If we stop before the overlay is
  // made empty, it holds all that the base has. While it is made empty it may hold some of that:
  // whatever it still has, and whatever it has given up, reads the same, since the base has all of
  // it on its disk by then.
  task<void> last_step(root& to, paced_copy& copy) {
    co_await context(copy.rest_drained(), partly_committed, to.top().describe());
    co_await context(to.flush(), "flushing {}", to.top().describe());
    co_await context(overlay_.owner().make_empty(overlay_, graph::emptied::reads_the_same),
                     "{} has given all its content to its base, and keeps it", overlay_.describe());
  }

  write_watch& watched_;
  const commit_request& request_;
  node& overlay_;
};

task<void> commit_watched(write_watch& watched, const commit_request& request, node& overlay) {
  const blocked_node top(overlay, forbidden_to_overlay, *request.control);
  const blocked_node base(*request.base, forbidden_to_base, *request.control);
  live_commit work(watched, request, overlay);
  co_await work.run();
}

task<void> commit_shared(const commit_request& request, node& overlay) {
  co_await with(watch(overlay, *request.control),
                [&](write_watch& w) { return commit_watched(w, request, overlay); });
}

} // namespace

task<void> commit_in_use(commit_request request, node& overlay) {
  BGFS_ASSERT(request.control != nullptr, "a commit of what is in use is a job");
  co_await check_commit(request);
  co_await with(share_writing(*request.top),
                [&](shared_writing&) { return commit_shared(request, overlay); });
}

} // namespace bgfs
