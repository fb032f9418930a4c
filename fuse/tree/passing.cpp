// SPDX-License-Identifier: MIT
#include "fuse/tree/passing.h"

namespace bgfs {

task<std::optional<breakpoints_off>> let_requests_pass(exported_root& root) {
  if (root.attached() == nullptr)
    co_return std::nullopt;
  auto passing = co_await root.place().look([&root] {
    const bgfs::root* const top = root.attached();
    return top == nullptr ? std::nullopt : std::optional(breakpoints_off(top->top()));
  });
  co_return passing;
}

task<std::vector<breakpoints_off>> let_requests_pass(std::vector<root_pointer> roots) {
  std::vector<breakpoints_off> all;
  for (const root_pointer& root : roots) {
    std::optional<breakpoints_off> one = co_await let_requests_pass(*root);
    if (one)
      all.push_back(*std::move(one));
  }
  co_return all;
}

} // namespace bgfs
