// SPDX-License-Identifier: MIT
// .bgfs/reload and .bgfs/reload-plan.
#include "fuse/tree/reload.h"
#include "fuse/views/common.h"

#include <sstream>

namespace bgfs {
namespace {

task<std::string> render_reload(view_subject) {
  co_return "1  reads the configuration again and applies the difference\n"
            "force  does so even if roots that are open would go or become read-only\n"
            "ro  also opens everything read-only, as a mount with -o ro does\n"
            "rw  no longer does\n";
}

// Words in any order: "1", "force", "force ro".
task<void> write_reload(view_subject subject, std::string text) {
  reload_request request{.pid = subject.pid};
  std::istringstream words(text);
  std::string word;
  while (words >> word) {
    if (word == "force") {
      request.is_forced = true;
    } else if (word == "ro" || word == "rw") {
      request.is_read_only = word == "ro";
    } else if (word != "1") {
      co_await fail(error_kind::invalid_argument, "write 1, force, ro or rw to reload, not '{}'",
                    word);
    }
  }
  (void)co_await reload(subject.mount, request);
}

task<std::string> render_plan(view_subject subject) {
  std::string text = co_await describe_reload(subject.mount);
  co_return text;
}

} // namespace

extern constinit const view reload_view{
    .name = "reload",
    .summary = "write 1 (or force) to read the configuration again and apply the difference",
    .render = render_reload,
    .write = write_reload,
    .changes_graph = true};
extern constinit const view reload_plan_view{
    .name = "reload-plan", .summary = "what a reload would change now", .render = render_plan};

} // namespace bgfs
