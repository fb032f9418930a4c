// SPDX-License-Identifier: MIT
// state: one word, and the reason on the second line.
#include "fuse/views/common.h"

namespace bgfs {
namespace {

task<std::string> render(view_subject subject) {
  const root_state now = co_await subject.root->state();
  std::string text = std::string(now.word) + "\n";
  if (!now.reason.empty())
    text += now.reason + "\n";
  co_return text;
}

} // namespace

extern constinit const view state_view{
    .name = "state",
    .summary = "ok, read-only, opening, full, stopped, failed, corrupt or closing; then the reason",
    .render = render,
    .needs_medium = false};

} // namespace bgfs
