// SPDX-License-Identifier: MIT
// The events of a mount, as they come.
#pragma once

#include "config/mount_client.h"
#include "config/whole_file.h"

namespace bgfs {

class event_reader {
public:
  [[nodiscard]] static result<event_reader> of(const mount_client& mount);

  // What has come since the last time: whole lines, "" if there are none. The first time what is
  // kept. An error: the mount has ended.
  [[nodiscard]] result<std::string> read_new();

private:
  event_reader(mount_client mount, owned_fd events)
      : mount_(std::move(mount)), events_(std::move(events)) {}
  mount_client mount_;
  owned_fd events_;  // closed: they are an attribute of a file
  std::string seen_; // of that, the last time
};

// Pure. Two looks at lines that go on, of which only the last are kept: what is new in the second.
// Where they have nothing in common all is new.
[[nodiscard]] std::string_view new_lines(std::string_view before, std::string_view now);

} // namespace bgfs
