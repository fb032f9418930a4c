// SPDX-License-Identifier: MIT
// .bgfs/reload and .bgfs/reload-plan.
#include "fuse/tree/reload.h"
#include "fuse/views/common.h"

namespace bgfs {
namespace {

task<std::string> render_reload(view_subject) {
  co_return "1  reads the configuration again and applies the difference\n"
            "force  does so even if roots that are open would go or become read-only\n";
}

task<void> write_reload(view_subject subject, std::string text) {
  if (text != "1" && text != "force")
    co_await fail(error_kind::invalid_argument, "write 1 or force to reload, not '{}'", text);
  (void)co_await reload(subject.mount, {.is_forced = text == "force", .pid = subject.pid});
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
