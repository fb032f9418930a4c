// SPDX-License-Identifier: MIT
// ctl: one verb per write; reading it lists them.
#include "fuse/views/common.h"

#include "graph/base/text.h"

#include <algorithm>
#include <array>

namespace bgfs {
namespace {

struct verb {
  std::string_view name;
  std::string_view summary;
  task<void> (*run)(view_subject subject);
};

task<void> flush(view_subject subject) {
  co_await subject.root->require_medium();
  if (subject.root->is_writable())
    co_await subject.root->disk()->flush();
}

task<void> retry(view_subject subject) {
  co_await subject.root->retry(subject.pid);
}

constexpr std::array verbs = {
    verb{"flush", "makes everything written so far durable", flush},
    verb{"retry", "tries again to open a root that failed", retry},
};

task<std::string> render(view_subject) {
  std::string text;
  for (const verb& v : verbs)
    text += fmt::format("{}  {}\n", v.name, v.summary);
  co_return text;
}

task<void> write(view_subject subject, std::string text) {
  const auto found = std::ranges::find(verbs, std::string_view(text), &verb::name);
  if (found != verbs.end()) {
    co_await found->run(subject);
    co_return;
  }
  std::array<std::string_view, verbs.size()> names;
  std::ranges::transform(verbs, names.begin(), &verb::name);
  co_await fail(error_kind::invalid_argument, "'{}' is no verb of ctl (these are: {}){}", text,
                fmt::join(names, ", "), did_you_mean(text, names));
}

} // namespace

extern constinit const view ctl_view{.name = "ctl",
                                     .summary = "takes one verb per write; reading it lists them",
                                     .render = render,
                                     .write = write,
                                     .needs_medium = false};

} // namespace bgfs
