// SPDX-License-Identifier: MIT
#include "config/commands/command_signals.h"

#include "graph/io/io_operation.h"
#include "graph/io/spawn.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace bgfs {

namespace {

constexpr int ending[] = {SIGINT, SIGTERM, SIGHUP};

bool is_ignored(int number) {
  struct sigaction now{};
  return ::sigaction(number, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

[[noreturn]] void end_by(int number) {
  sigset_t only;
  ::sigemptyset(&only);
  ::sigaddset(&only, number);
  ::signal(number, SIG_DFL);
  ::raise(number);
  ::pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
  ::_exit(128 + number); // it has ended by now
}

} // namespace

command_signals::command_signals(bool is_watching) {
  if (!is_watching)
    return;
  sigset_t held;
  ::sigemptyset(&held);
  for (const int number : ending)
    if (!is_ignored(number))
      ::sigaddset(&held, number);
  if (!is_ignored(SIGUSR1))
    ::sigaddset(&held, SIGUSR1);
  fd_ = ::signalfd(-1, &held, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd_ >= 0) // without a descriptor they do what they do by themselves
    ::pthread_sigmask(SIG_BLOCK, &held, nullptr);
}

command_signals::~command_signals() {
  if (fd_ >= 0)
    ::close(fd_);
}

task<void> command_signals::watch(cancel_state& work) {
  for (;;) {
    const i64 events = co_await io_poll(fd_, POLLIN);
    if (events < 0)
      co_return;
    signalfd_siginfo signal{};
    if (::read(fd_, &signal, sizeof signal) != sizeof signal)
      continue;
    const int number = static_cast<int>(signal.ssi_signo);
    if (number == SIGUSR1) {
      is_progress_wanted_ = true;
      continue;
    }
    if (caught_ != 0)
      end_by(number);
    caught_ = number;
    work.request();
  }
}

result<> command_signals::run(loop& home, task<void> work) {
  if (fd_ < 0)
    return run_to_end(home, std::move(work));
  cancel_state working;
  cancel_state watching;
  std::optional<result<>> outcome;
  bool has_watch_ended = false;
  spawn(home, watch(working), &watching, [&](result<>) { has_watch_ended = true; });
  spawn(home, std::move(work), &working, [&](result<> r) {
    outcome = std::move(r);
    watching.request();
  });
  while (!outcome || !has_watch_ended)
    home.run_once();
  return *std::move(outcome);
}

void command_signals::end_as_asked() const {
  if (caught_ == 0)
    return;
  (void)std::fflush(stdout);
  end_by(caught_);
}

} // namespace bgfs
