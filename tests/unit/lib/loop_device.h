// SPDX-License-Identifier: MIT
// A block device over a file, where the machine lets us have one. The kernel takes it away with its
// last descriptor, so that nothing is left behind.
#pragma once

#include "graph/io/file.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

namespace bgfs::test {

class loop_device {
public:
  explicit loop_device(const std::string& over) {
    const descriptor control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    const descriptor backing(open(over.c_str(), O_RDWR | O_CLOEXEC));
    // Another program may take the free one first.
    for (int tries = 0; tries < 10 && !is_attached(); tries++)
      attach(control.get(), backing.get());
  }

  [[nodiscard]] bool is_attached() const { return device_.is_open(); }
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] const std::string& why_not() const { return why_not_; }
  // The file has another length: so has the device from now on.
  [[nodiscard]] bool take_length() const { return ioctl(device_.get(), LOOP_SET_CAPACITY, 0) == 0; }

private:
  void attach(int control, int backing) {
    const int number = ioctl(control, LOOP_CTL_GET_FREE);
    why_not_ = strerror(errno);
    if (number < 0)
      return;
    path_ = "/dev/loop" + std::to_string(number);
    descriptor device(open(path_.c_str(), O_RDWR | O_CLOEXEC));
    loop_config config{};
    config.fd = static_cast<u32>(backing);
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    const bool is_ours = ioctl(device.get(), LOOP_CONFIGURE, &config) == 0;
    why_not_ = strerror(errno);
    if (is_ours)
      device_ = std::move(device);
  }

  descriptor device_;
  std::string path_;
  std::string why_not_;
};

} // namespace bgfs::test
