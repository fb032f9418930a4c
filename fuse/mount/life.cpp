// SPDX-License-Identifier: MIT
#include "fuse/mount/life.h"

#include "fuse/mount/fuse_mounter.h"
#include "fuse/transport/device_transport.h"
#include "fuse/tree/reload.h"
#include "graph/io/io_operation.h"
#include "graph/io/offload.h"
#include "graph/io/sleep.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace bgfs {
namespace {

// What the kernel holds back in pages is written, while requests are still served. A file that is
// mounted alone cannot be opened when its root has failed, and then holds nothing back.
bool sync_tree(const std::string& mount_point) {
  const descriptor there(open(mount_point.c_str(), O_RDONLY | O_CLOEXEC));
  if (there.is_open())
    (void)syncfs(there.get());
  return true;
}

value describe_mount(const mount_state& mount) {
  value data;
  data.set("directory", mount.directory);
  data.set("source", mount.config().source());
  data.set("roots", static_cast<u64>(mount.roots.size()));
  return data;
}

// Of a connection that was aborted the mount is still in the tree.
void remove_dead_mount(const std::string& directory) {
  if (is_dead_mount(directory))
    (void)unmount(directory, unmount_mode::lazily);
}

} // namespace

task<int> mount_life::run() {
  int status = mount_status::failure;
  mount_.wanted_queues = options_.queues;
  // Over which transport requests will come is not known before the kernel has said its part.
  mount_.nodes.set_lease_queues(
      static_cast<unsigned>(std::max(mount_.queue_count(true), mount_.queue_count(false))));
  const bool may_mount = co_await open_roots();
  if (may_mount)
    status = co_await serve();
  const bool is_closed = co_await close_roots();
  // The descriptor goes last: until here a process that has a file open waits, now it is told.
  session_.reset();
  if (!is_closed && status == mount_status::ok)
    status = mount_status::failure;
  co_return status;
}

// False when nothing may be mounted.
task<bool> mount_life::open_roots() {
  bool may_mount = true;
  for (const auto& root : mount_.roots) {
    if (root->spec().open == open_mode::on_demand && !is_one_image_)
      continue;
    const result<> opened = co_await as_result(root->open(0));
    if (opened)
      continue;
    const error* const reason = root->failure() != nullptr ? root->failure() : &opened.error();
    may_mount = tell_failed(*root, *reason) && may_mount;
  }
  co_return may_mount;
}

// False when nothing may be mounted without it.
bool mount_life::tell_failed(const exported_root& root, const error& reason) const {
  const bool is_only = is_one_image_ || mount_.is_one_file; // nothing else is worth a mount
  const bool is_fatal = is_only || root.spec().is_required || mount_.request.is_strict;
  if (is_only) {
    complain(reason);
  } else if (is_fatal) {
    complain(fmt::format("root '{}' is required and could not be opened: {}", root.name(),
                         reason.message()));
  } else {
    complain(fmt::format("root '{0}' could not be opened: {1}; the others are mounted, and 'echo "
                         "retry > {2}/{0}.d/ctl' tries again",
                         root.name(), reason.message(), mount_.directory));
  }
  return !is_fatal;
}

// Whether the kernel passes files through is known only now that it is there.
task<bool> mount_life::check_passthrough() {
  bool may_mount = true;
  for (const auto& root : mount_.roots) {
    if (root->attached() == nullptr || root->spec().passthrough != passthrough_mode::on)
      continue;
    result<> possible = co_await as_result(root->place().run(
        [&] { return require_passthrough(mount_, root->spec(), root->attached()->top()); }));
    if (possible)
      continue;
    may_mount = tell_failed(*root, possible.error()) && may_mount;
    co_await root->give_up(std::move(possible).error());
  }
  co_return may_mount;
}

task<int> mount_life::serve() {
  result<std::unique_ptr<mount_session>> mounted =
      mount_session::mount(mount_.config().source(), mount_.directory, options_);
  if (!mounted) {
    complain(mounted.error());
    co_return mount_status::failure;
  }
  session_ = *std::move(mounted);
  const auto requests = make_device_transport(mount_.home, session_->fd());
  mount_.transport_name = requests->name();
  mount_.wanted_transport = options_.transport;
  mount_.set_payload_budget(options_.payload_budget);
  mount_.session_fd = session_->fd();
  mount_.notifications = std::make_unique<notifier>(session_->fd());
  mount_.set_line_notifier(mount_.notifications.get());
  server served(mount_, *requests);
  helpers_.spawn(watch_signals(served));
  helpers_.spawn(announce(served));
  for (const auto& root : mount_.roots)
    helpers_.spawn(flush_regularly(root));
  mount_.root_added = [this](const root_pointer& root) { helpers_.spawn(flush_regularly(root)); };
  co_await served.run();
  mount_.root_added = nullptr;
  helpers_.request_stop();
  (void)co_await as_result(helpers_.join());
  mount_.set_line_notifier(nullptr);
  mount_.notifications.reset();
  if (!has_left_)
    remove_dead_mount(mount_.directory);
  if (served.refusal() == nullptr)
    co_return is_refused_ ? mount_status::failure : mount_status::ok;
  complain(*served.refusal());
  co_return mount_status::failure;
}

task<void> mount_life::announce(server& served) {
  co_await served.ready().wait();
  if (served.refusal() == nullptr) {
    const bool may_mount = co_await check_passthrough();
    is_refused_ = !may_mount;
  }
  if (served.refusal() == nullptr && !is_refused_) {
    trace<point::mount_ready>(mount_.home.log(), mount_.directory, mount_.config().source());
    mount_.events.emit(event_name::mount_ready, describe_mount(mount_));
    // What failed until now was said by its own message.
    if (mount_.request.is_foreground)
      mount_.log_lines.copy_to_standard_error();
    report_.ready();
    co_return;
  }
  has_left_ = true;
  (void)unmount(mount_.directory, unmount_mode::lazily);
  served.stop();
}

task<void> mount_life::reload_on_signal() {
  const result<std::string> done = co_await as_result(reload(mount_, {}));
  if (done)
    co_return;
  mount_.log.add(0, "reload", done.error());
  complain(done.error());
}

// SIGHUP reloads; every other one ends the mount.
task<void> mount_life::watch_signals(server& to_stop) {
  for (;;) {
    const i64 events = co_await io_poll(signal_fd_, POLLIN);
    if (events < 0)
      co_return;
    signalfd_siginfo signal{};
    if (::read(signal_fd_, &signal, sizeof signal) != sizeof signal)
      continue;
    if (signal.ssi_signo != SIGHUP)
      break;
    co_await reload_on_signal();
  }
  has_left_ = true;
  co_await mount_.take_what_is_held_back();
  const bool is_synced = co_await offload([this] {
    mount_.notifications->stop(); // while requests are served: its thread may wait for them
    const bool done = sync_tree(mount_.directory);
    return unmount(mount_.directory, unmount_mode::lazily).has_value() && done;
  });
  if (!is_synced)
    mount_.log.add(0, "unmount", error(error_kind::busy, "cannot leave the tree of mounts"));
  co_await await_kernel_writers();
  to_stop.stop();
}

// What the kernel writes by itself it goes on writing when we are gone. Until the last such file is
// closed the images stay locked; a second signal ends it all the same.
task<void> mount_life::await_kernel_writers() {
  constexpr std::chrono::milliseconds pause(20);
  const auto is_written = [](const root_pointer& r) { return r->through_kernel().is_writing(); };
  signalfd_siginfo again{};
  while (std::ranges::any_of(mount_.roots, is_written) &&
         ::read(signal_fd_, &again, sizeof again) != sizeof again)
    co_await sleep_for(pause);
}

// A reload may change the interval; one that is 0 now is looked at again later.
task<void> mount_life::flush_regularly(root_pointer root) {
  constexpr std::chrono::milliseconds idle_interval(1000);
  while (root->phase() != root_phase::gone) {
    const std::chrono::milliseconds interval(root->spec().flush_interval_ms);
    co_await sleep_for(interval.count() > 0 ? interval : idle_interval);
    if (interval.count() == 0 || !root->is_writable() || root->attached() == nullptr)
      continue;
    if (mount_.is_writeback()) // and what the kernel holds back
      co_await offload([this] { return sync_tree(mount_.directory); });
    const result<> flushed = co_await as_result(
        root->place().run([disk = root->disk()] { return disk->flush_changes(); }));
    if (!flushed)
      root->log.add(0, "flush", flushed.error());
  }
}

void mount_life::closing_failed(const error& e) {
  closing_messages_ += e.message() + "\n";
  complain(e);
}

task<bool> mount_life::close_roots() {
  co_await mount_.jobs.end();
  (void)co_await as_result(mount_.closing.join()); // each has logged what went wrong
  for (const auto& root : mount_.roots) {
    const result<> closed = co_await as_result(root->close());
    if (!closed)
      closing_failed(closed.error());
  }
  for (graph* g : mount_.graphs()) {
    const result<> closed = co_await as_result(run_on(g->home(), g->close_all()));
    if (!closed)
      closing_failed(closed.error());
  }
  mount_.iothreads.clear();
  for (const auto& root : mount_.roots)
    root->keep_time();
  co_return closing_messages_.empty();
}

} // namespace bgfs
