// SPDX-License-Identifier: MIT
// .bgfs/version, features, exports, files, pid, outcome-fd: about the mount and its process.
#include "fuse/views/common.h"

#include <algorithm>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <unistd.h>

namespace bgfs {
namespace {

task<std::string> render_version(view_subject) {
  co_return "bgfs " BGFS_VERSION "\n";
}

task<std::string> render_features(view_subject subject) {
  const mount_state& mount = subject.mount;
  std::string text;
  utsname system{};
  uname(&system);
  add_line(text, "kernel", system.release);
  add_line(text, "fuse", fmt::format("{}.{}", kernel::major_version, mount.kernel.kernel_minor));
  add_line(text, "fuse-flags", fmt::format("{}", fmt::join(mount.kernel.flag_names(), " ")));
  add_line(text, "transport", mount.transport_name);
  add_line(text, "queues", mount.queue_count(mount.kernel.uses_uring()));
  if (mount.may_pass_through)
    add_line(text, "passthrough",
             *mount.may_pass_through ? "yes" : "no: " + mount.may_pass_through->error().message());
  add_line(text, "write-length-max", mount.kernel.write_length_max);
  add_line(text, "io", mount.home.backend_name());
  if (mount.home.shuffle_seed() != 0)
    add_line(text, "shuffle-seed", std::to_string(mount.home.shuffle_seed()));
  std::string threads;
  for (const auto& t : mount.iothreads)
    threads += (threads.empty() ? "" : " ") + t->name();
  add_line(text, "iothreads", threads.empty() ? "none" : threads);
  add_line(text, "io-flusher", yes_or_no(prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) == 1));
  std::string drivers;
  for (const std::string_view name : mount.nodes.drivers().names())
    drivers += (drivers.empty() ? "" : " ") + std::string(name);
  add_line(text, "drivers", drivers);
  co_return text;
}

task<std::string> render_exports(view_subject subject) {
  std::string text;
  for (const auto& root : subject.mount.roots)
    text += root->name() + "\n";
  co_return text;
}

void add_files(const graph& g, std::vector<std::string>& lines) {
  for (const auto& n : g.nodes()) {
    if (!n->is_open())
      continue;
    const std::string path = n->instance().host_path();
    if (n->type().kind != driver_kind::protocol || path.empty())
      continue;
    lines.push_back(fmt::format("{}{} {}\n", n->is_read_only() ? "ro" : "rw",
                                n->generic().cache_direct ? ",direct" : "", path));
  }
}

task<std::string> render_files(view_subject subject) {
  std::vector<std::string> lines;
  co_await subject.mount.look_at_graphs([&](const graph& g) { add_files(g, lines); });
  std::ranges::sort(lines);
  lines.erase(std::ranges::unique(lines).begin(), lines.end());
  co_return fmt::format("{}", fmt::join(lines, ""));
}

task<std::string> render_pid(view_subject) {
  co_return fmt::format("{}\n", getpid());
}

task<std::string> render_outcome_fd(view_subject subject) {
  co_return fmt::format("{}\n", subject.mount.outcome_fd);
}

} // namespace

extern constinit const view version_view{
    .name = "version", .summary = "of this program", .render = render_version};
extern constinit const view features_view{
    .name = "features", .summary = "what the kernel offers and is used", .render = render_features};
extern constinit const view exports_view{
    .name = "exports", .summary = "the names of the roots, one a line", .render = render_exports};
extern constinit const view files_view{.name = "files",
                                       .summary = "every host path that is open, after its flags",
                                       .render = render_files};
extern constinit const view pid_view{
    .name = "pid", .summary = "of the process that serves the mount", .render = render_pid};
extern constinit const view outcome_fd_view{
    .name = "outcome-fd",
    .summary = "the descriptor of that process in which 'bgfs umount' finds how closing went",
    .render = render_outcome_fd};

} // namespace bgfs
