// SPDX-License-Identifier: MIT
#include "graph/model/snapshot_group.h"

#include "graph/io/run_on.h"
#include "graph/io/with.h"

#include <algorithm>

namespace bgfs {

namespace {

// The graphs are entered one inside the other: while the innermost runs, all of them are drained.
// Whoever enters several does so in the same order, so that two do not wait for each other.
class snapshot_group {
public:
  snapshot_group(std::vector<node*> images, new_snapshot wanted)
      : images_(std::move(images)), wanted_(std::move(wanted)), ids_(images_.size()) {
    for (node* image : images_)
      if (std::ranges::find(graphs_, &image->owner()) == graphs_.end())
        graphs_.push_back(&image->owner());
    std::ranges::sort(graphs_, std::less<>());
  }

  task<std::vector<std::string>> run() {
    co_await enter(0);
    co_return std::move(ids_);
  }

private:
  task<void> enter(std::size_t index) {
    if (index == graphs_.size())
      return create_or_undo();
    graph& next = *graphs_[index];
    std::vector<node*> its;
    std::ranges::copy_if(images_, std::back_inserter(its),
                         [&](const node* image) { return &image->owner() == &next; });
    return run_on(next.home(), next.hold_for_snapshots(std::move(its),
                                                       [this, index] { return enter(index + 1); }));
  }

  // Nobody's impatience leaves some of them.
  task<void> create_or_undo() { co_await shielded(create_all()); }

  task<void> create_all() {
    for (std::size_t i = 0; i < images_.size(); i++) {
      graph& of = images_[i]->owner();
      result<std::string> made =
          co_await as_result(run_on(of.home(), of.create_snapshot_held(*images_[i], wanted_)));
      if (made) {
        ids_[i] = *std::move(made);
        continue;
      }
      const std::string left = co_await undo(i);
      made.error().add_context(fmt::format("creating snapshot '{}' of {} images at one instant{}",
                                           wanted_.name, images_.size(), left));
      co_await fail(std::move(made).error());
    }
  }

  // The end of a sentence.
  task<std::string> undo(std::size_t count) {
    std::string left;
    while (count > 0) {
      node& image = *images_[--count];
      const result<> gone = co_await as_result(
          run_on(image.owner().home(), image.owner().delete_snapshot_held(image, ids_[count])));
      if (!gone)
        left += fmt::format(" (its id {} is left in {}: {})", ids_[count], image.describe(),
                            gone.error().message());
    }
    co_return left;
  }

  std::vector<node*> images_;
  new_snapshot wanted_;
  std::vector<std::string> ids_;
  std::vector<graph*> graphs_;
};

} // namespace

task<std::vector<std::string>> create_snapshots(std::vector<node*> images, new_snapshot wanted) {
  co_await check_snapshot_name(wanted.name);
  snapshot_group group(std::move(images), std::move(wanted));
  std::vector<std::string> ids = co_await group.run();
  co_return ids;
}

namespace {

// Roots over the images, one inside the other, with what creating a snapshot needs.
class held_images {
public:
  held_images(graph& in, std::vector<node*> images, std::function<task<void>()> inside)
      : in_(in), images_(std::move(images)), inside_(std::move(inside)) {}

  task<void> hold(std::size_t index) {
    using namespace permission;
    if (index == images_.size())
      return in_.drain_for_snapshots(images_, inside_);
    return with(in_.attach("creating a snapshot", *images_[index],
                           {consistent_read | write_unchanged, all}),
                [this, index](root&) { return hold(index + 1); });
  }

private:
  graph& in_;
  std::vector<node*> images_;
  std::function<task<void>()> inside_;
};

} // namespace

task<void> graph::hold_for_snapshots(std::vector<node*> images,
                                     std::function<task<void>()> inside) {
  for (const node* image : images)
    co_await image->check_writable();
  held_images all(*this, std::move(images), std::move(inside));
  co_await all.hold(0);
}

task<void> graph::drain_for_snapshots(const std::vector<node*>& images,
                                      const std::function<task<void>()>& inside) {
  const async_mutex::guard editing = co_await edits_.lock();
  for (const node* image : images) {
    co_await image->check_writable(); // an edit may have come first
    co_await image->check_operation(node_operation::internal_snapshot);
  }
  co_await with(drain(images), [&](drained&) { return inside(); });
}

} // namespace bgfs
