// SPDX-License-Identifier: MIT
// What happens on the loop of a mount from the opening of its roots to their closing. Nothing in it
// ends with an error: whatever fails is reported, and the rest is closed all the same.
#pragma once

#include "fuse/mount/launch.h"
#include "fuse/mount/mount_point.h"
#include "fuse/operations/server.h"

namespace bgfs {

class mount_life {
public:
  mount_life(mount_state& mount, mount_options options, launch_report& report, int signal_fd,
             bool is_one_image)
      : mount_(mount), options_(std::move(options)), report_(report), signal_fd_(signal_fd),
        is_one_image_(is_one_image), helpers_(mount.home) {}

  // Returns the exit status of the process.
  task<int> run();
  // What went wrong while closing, one message a line.
  [[nodiscard]] const std::string& closing_messages() const { return closing_messages_; }

private:
  task<bool> open_roots();
  task<bool> check_passthrough();
  [[nodiscard]] bool tell_failed(const exported_root& root, const error& reason) const;
  task<int> serve();
  task<void> watch_signals(server& to_stop);
  task<void> await_kernel_writers();
  task<void> announce(server& served);
  task<void> reload_on_signal();
  task<void> flush_regularly(root_pointer root);
  task<bool> close_roots();
  void closing_failed(const error& e);

  mount_state& mount_;
  mount_options options_;
  launch_report& report_;
  int signal_fd_;
  bool is_one_image_;
  std::unique_ptr<mount_session> session_;
  task_group helpers_;
  bool is_refused_ = false; // a root that must be there cannot be served as it asks for
  bool has_left_ = false;   // the end was ours: the tree is, or cannot be, left
  std::string closing_messages_;
};

} // namespace bgfs
