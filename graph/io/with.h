// SPDX-License-Identifier: MIT
// with(acquire, body): the only way to use something whose undo must be awaited.
//
//   co_await with(open_node(spec), [&](node& n) { return serve(n); });
//
// `acquire` is a task that makes a resource: a value or unique_ptr with `task<void> release()`.
// `body` is a plain function (not itself a coroutine) that returns a task. The release is awaited
// on success, on error and on cancellation, and cannot be cancelled. The body's error wins over the
// release's; if only the release fails, its error is the outcome.
#pragma once

#include "graph/io/spawn.h"

#include <memory>

namespace bgfs {

namespace detail {
template<class R>
R& resource_of(R& r) {
  return r;
}
template<class R>
R& resource_of(std::unique_ptr<R>& r) {
  return *r;
}
template<class R>
task<void> release_shielded(R& resource) {
  co_await shielded(resource.release());
}
} // namespace detail

template<class R, class Body>
auto with(task<R> acquire, Body body) -> decltype(body(detail::resource_of(std::declval<R&>()))) {
  using outcome_type = typename decltype(body(detail::resource_of(std::declval<R&>())))::value_type;
  R resource = co_await std::move(acquire);
  auto& used = detail::resource_of(resource);
  result<outcome_type> outcome = co_await as_result(body(used));
  result<> released = co_await as_result(detail::release_shielded(used));
  if (!outcome)
    co_await fail(std::move(outcome).error());
  if (!released)
    co_await fail(std::move(released).error());
  if constexpr (!std::is_void_v<outcome_type>)
    co_return *std::move(outcome);
}

} // namespace bgfs
