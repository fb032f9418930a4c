// SPDX-License-Identifier: MIT
#include "fuse/mount/launch.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bgfs {
namespace {

constexpr int status_system = 2;
constexpr int status_mount = 32;

void silence(int fd, int flags) {
  const int null = open("/dev/null", flags | O_CLOEXEC);
  if (null < 0)
    return;
  dup2(null, fd);
  close(null);
}

// The parent: waits for one byte, or for the end of the child.
int await_child(pid_t child, int from_child) {
  unsigned char status = 0;
  ssize_t count = 0;
  do {
    count = read(from_child, &status, 1);
  } while (count < 0 && errno == EINTR);
  if (count == 1 && status == 0)
    return 0;
  int ended = 0;
  while (waitpid(child, &ended, 0) < 0 && errno == EINTR) {
  }
  if (count == 1)
    return status;
  if (WIFSIGNALED(ended))
    std::fprintf(
        stderr,
        "bgfs: the serving process was ended by signal %d (%s) before the mount was usable\n",
        WTERMSIG(ended), strsignal(WTERMSIG(ended)));
  return WIFEXITED(ended) && WEXITSTATUS(ended) != 0 ? WEXITSTATUS(ended) : status_mount;
}

} // namespace

void launch_report::ready() {
  is_ready_ = true;
  if (ready_fd_ >= 0) {
    (void)!write(ready_fd_, "ready\n", 6);
    close(ready_fd_);
  }
  if (!to_parent_.is_open())
    return;
  silence(STDOUT_FILENO, O_WRONLY);
  silence(STDERR_FILENO, O_WRONLY);
  finish(0);
}

void launch_report::finish(int status) {
  if (!to_parent_.is_open())
    return;
  const auto byte = static_cast<unsigned char>(status);
  (void)!write(to_parent_.get(), &byte, 1);
  to_parent_.reset();
}

int launch(bool is_foreground, int ready_fd, const std::function<int(launch_report&)>& serve) {
  if (is_foreground) {
    launch_report report(descriptor(), ready_fd);
    return serve(report);
  }
  int ends[2] = {-1, -1};
  if (pipe2(ends, O_CLOEXEC) != 0) {
    std::perror("bgfs: cannot make a pipe");
    return status_system;
  }
  descriptor from_child(ends[0]);
  descriptor to_parent(ends[1]);
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) {
    std::perror("bgfs: cannot start the serving process");
    return status_system;
  }
  if (child > 0) {
    to_parent.reset();
    return await_child(child, from_child.get());
  }
  from_child.reset();
  setsid();
  if (chdir("/") != 0)
    std::perror("bgfs: cannot change to /");
  silence(STDIN_FILENO, O_RDONLY);
  launch_report report(std::move(to_parent), ready_fd);
  const int status = serve(report);
  if (!report.is_ready())
    report.finish(status);
  std::exit(status);
}

} // namespace bgfs
