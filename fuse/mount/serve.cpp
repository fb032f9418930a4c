// SPDX-License-Identifier: MIT
#include "fuse/mount/serve.h"

#include "fuse/mount/fuse_mounter.h"
#include "fuse/mount/instance_lock.h"
#include "fuse/mount/life.h"
#include "fuse/mount/outcome.h"

#include <csignal>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace bgfs {
namespace {

// Termination arrives through a descriptor; blocked before any thread is started, which inherit it.
descriptor catch_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP})
    sigaddset(&signals, number);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return descriptor(signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
}

void prepare_process() {
  // Memory that is freed by writing through us must not be what we wait for (loop devices). Needs
  // CAP_SYS_RESOURCE; without it the kernel's own limits have to do.
  (void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
  }
}

// The short form, `bgfs mount IMAGE DIR`: its only export was written in no file.
bool is_one_image(const graph_config& config) {
  return config.exports().size() == 1 && config.exports().front().mark.file == nullptr;
}

result<> require_paths_outside(const mount_state& mount) {
  BGFS_CHECK(mount.require_outside(mount.config().source()));
  for (const std::string& path : mount.config().host_paths())
    BGFS_CHECK(mount.require_outside(path));
  return {};
}

} // namespace

int serve_mount(serve_request request, const registry& drivers, launch_report& report) {
  const descriptor signals = catch_signals();
  prepare_process();
  request.mount.config.secrets()->relock(); // locks stay with the process before the fork
  const bool is_image = is_one_image(request.mount.config);
  descriptor lock;
  if (!is_image) { // an image is locked by its own driver
    result<descriptor> taken = lock_graph_file(request.mount.config.source());
    if (!taken) {
      complain(taken.error());
      return mount_status::failure;
    }
    lock = *std::move(taken);
  }
  result<std::unique_ptr<loop>> home = loop::create();
  if (!home) {
    complain(home.error());
    return mount_status::system;
  }
  const descriptor outcome_file = make_outcome_file();
  closing_outcome outcome;
  {
    mount_state mount(**home, std::move(request.mount), std::move(request.directory), drivers);
    mount.is_one_file = request.is_one_file;
    mount.outcome_fd = outcome_file.get();
    mount.request.config.keep_out_of(mount.places.now());
    if (const result<> outside = require_paths_outside(mount); !outside) {
      complain(outside.error());
      return mount_status::failure;
    }
    mount_life life(mount, std::move(request.options), report, signals.get(), is_image);
    result<int> status = run_to_end(**home, life.run());
    BGFS_ASSERT(status.has_value(), "a mount's life ends with a status, not with an error");
    outcome = {*status, life.closing_messages()};
  }
  write_outcome(outcome_file.get(), outcome);
  return outcome.status;
}

} // namespace bgfs
