// SPDX-License-Identifier: MIT
#include "graph/io/task.h"

namespace bgfs {

std::coroutine_handle<> propagate(promise_base& from, error e) noexcept {
  for (promise_base* frame = &from;;) {
    await_link* link = frame->link;
    BGFS_ASSERT(link != nullptr, "an error left the outermost task: every root catches");
    if (link->add_context != nullptr)
      link->add_context(*link, e);
    if (link->catch_error != nullptr) {
      const std::coroutine_handle<> catcher = link->resume_parent;
      link->catch_error(*link, std::move(e));
      return catcher;
    }
    frame = link->parent;
  }
}

} // namespace bgfs
