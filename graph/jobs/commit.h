// SPDX-License-Identifier: MIT
// Committing (reference section 4, "commit"): what an overlay and the layers below it hold goes
// down into an image deeper in the chain.
#pragma once

#include "graph/model/graph.h"

#include <functional>

namespace bgfs {

// What is said of the base when a commit fails in the middle.
inline constexpr char partly_committed[] =
    "{} has only a part of it now, and what is above it still has all";

class job;

struct commit_request {
  root* top = nullptr;  // over the overlay; shares writing and resizing
  node* base = nullptr; // deeper in its chain
  // The top is the backing of others, which read the same bytes through it all the time, and
  // nobody writes to it.
  bool is_below_others = false;
  u64 bytes_per_second = 0;
  // Called now and then with bytes done and bytes in all. May not suspend.
  std::function<void(u64 done, u64 total)> progress;
  // Sets the pace and is told of the progress, instead of the two above. Null: nobody does.
  job* control = nullptr;
};

// Copies, and returns when the base has it all, durably. A base that is shorter grows; one that was
// read-only is opened for writing meanwhile. Layers between may read otherwise afterwards. At every
// instant, whatever fails, the overlay reads as before, since it holds all that was changed below
// it; what then takes it from the overlay is graph::make_empty.
// error_kind::busy where somebody else relies on the base.
task<void> commit_layers(commit_request request);

// The first half of it, for who copies by himself: `copy(to)`, a plain function that returns a
// task, is called with a root over the base that may write to it, and that is as long as the top.
task<void> write_to_base(commit_request request, std::function<task<void>(root& to)> copy);
// Whether anybody forbids it.
[[nodiscard]] result<> check_commit(const commit_request& request);

// Writes the name of its backing file into the header of an image that nobody writes to; it is
// opened for writing meanwhile.
task<void> change_backing_name(node& overlay, image_reference name);

} // namespace bgfs
