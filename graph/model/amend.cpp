// SPDX-License-Identifier: MIT
// Changing the image of a node as a whole: amending it, and taking its content from it.
#include "graph/io/spawn.h"
#include "graph/io/with.h"
#include "graph/model/graph.h"

namespace bgfs {

// Even if it fails it may have gone some of the way.
task<void> graph::amend_drained(node& n, const amend_request& request) {
  result<> done = co_await as_result(n.as_amendable()->amend(request));
  n.write_generation_++;
  n.forget_status({0, ~u64{0}});
  n.length_changed();
  co_await std::move(done);
}

task<void> graph::amend(node& n, amend_request request) {
  if (n.as_amendable() == nullptr || n.type().amend_options == nullptr)
    co_await fail(error_kind::unsupported, "images of format '{}' cannot be amended",
                  n.type().name);
  const async_mutex::guard editing = co_await edits_.lock();
  co_await n.check_writable();
  if (request.given.is_set("size"))
    co_await n.check_bitmaps_follow(request.given.number("size"));
  co_await with(drain(n), [&](drained&) { return amend_drained(n, request); });
}

task<void> graph::empty_drained(node& n, emptied what) {
  result<> done = co_await as_result(n.as_emptiable()->make_empty());
  n.write_generation_++;
  n.forget_status({0, ~u64{0}});
  n.mapping_changed({0, device_length_max});
  if (what == emptied::reads_otherwise)
    n.mark_dirty({0, n.length()});
  co_await std::move(done);
}

task<void> graph::make_empty(node& n, emptied what) {
  if (n.as_emptiable() == nullptr)
    co_await fail(error_kind::unsupported, "images of format '{}' cannot be made empty",
                  n.type().name);
  const async_mutex::guard editing = co_await edits_.lock();
  co_await n.check_writable();
  co_await with(drain(n), [&](drained&) { return empty_drained(n, what); });
}

} // namespace bgfs
