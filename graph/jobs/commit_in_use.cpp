// SPDX-License-Identifier: MIT
#include "graph/jobs/commit_in_use.h"

#include "graph/io/with.h"
#include "graph/model/bitmap_change.h"
#include "graph/model/edit.h"

namespace bgfs {
namespace {

constexpr std::string_view watch_name = "#commit"; // which no user can choose for a node

// Knows whether a node was written to since it was made: by a dirty bitmap, which also closes the
// way by lease and keeps the length as it is.
class write_watch {
public:
  write_watch(node& of, dirty_bitmap& which)
      : of_(of), hold_(std::make_unique<bitmap_hold>(of, which, "a commit that is under way")) {}

  [[nodiscard]] bool has_seen_any() const { return hold_->bitmap().dirty_bytes() != 0; }
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

task<std::unique_ptr<write_watch>> watch(node& overlay) {
  std::vector<bitmap_change> changes;
  changes.push_back(
      {.what = bitmap_change::kind::add, .where = &overlay, .name = std::string(watch_name)});
  co_await context(overlay.owner().change_bitmaps(std::move(changes)),
                   "watching what is written to {}", overlay.describe());
  dirty_bitmap* const made = overlay.bitmaps().find(watch_name);
  BGFS_ASSERT(made != nullptr, "nobody was there between");
  co_return std::make_unique<write_watch>(overlay, *made);
}

// While it is drained: what was not seen until now does not come.
task<void> empty_unless_written(write_watch& w, node& overlay) {
  if (w.has_seen_any())
    co_await fail(
        error_kind::busy,
        "{} was written to while it was committed: it keeps all its content, and its base "
        "has what was there before; nothing is lost, commit it again when nobody writes",
        overlay.describe());
  co_await context(overlay.owner().make_empty(overlay, graph::emptied::reads_the_same),
                   "{} has given all its content to its base, and keeps it", overlay.describe());
}

task<void> commit_watched(write_watch& w, commit_request request, node& overlay) {
  root& top = *request.top;
  co_await commit_layers(std::move(request));
  co_await with(overlay.owner().drain(overlay),
                [&](graph::drained&) { return empty_unless_written(w, overlay); });
  co_await top.flush();
}

task<void> commit_shared(commit_request request, node& overlay) {
  co_await with(watch(overlay),
                [&](write_watch& w) { return commit_watched(w, std::move(request), overlay); });
}

} // namespace

task<void> commit_in_use(commit_request request, node& overlay) {
  co_await with(share_writing(*request.top),
                [&](shared_writing&) { return commit_shared(std::move(request), overlay); });
}

} // namespace bgfs
