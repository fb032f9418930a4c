// SPDX-License-Identifier: MIT
// When a disk's content last changed, as st_mtime shows it. Two looks with a change between them
// see different, growing times, however close together they are: rsync has no other signal.
//
// The time survives a remount: when a changed disk is closed it is kept in the extended attribute
// user.bgfs.mtime of the image's file, together with the file's own mtime, and is believed as long
// as that is the same. Where attributes cannot be kept, the file's mtime is shown instead, which is
// never older.
#pragma once

#include "graph/base/ints.h"

#include <ctime>
#include <optional>
#include <string>

namespace bgfs {

class content_time {
public:
  void begin(std::timespec time) { shown_ = time; }
  // Called before and after each change.
  void changed() {
    clock_gettime(CLOCK_REALTIME_COARSE, &last_change_);
    is_changed_ = true;
    has_ever_changed_ = true;
  }
  // A change of which is known when it ended.
  void changed_at(std::timespec time) {
    last_change_ = time;
    is_changed_ = true;
    has_ever_changed_ = true;
  }
  // As utimensat asks: the content is what its maker says it is.
  void set(std::timespec time) {
    shown_ = time;
    is_changed_ = false;
    has_ever_changed_ = true;
  }
  [[nodiscard]] std::timespec shown();
  [[nodiscard]] bool has_ever_changed() const { return has_ever_changed_; }

private:
  std::timespec shown_{};
  std::timespec last_change_{};
  bool is_changed_ = false;
  bool has_ever_changed_ = false;
};

// Marks a change when it begins and when it ends, however it ends.
class content_change {
public:
  explicit content_change(content_time& time) : time_(time) { time_.changed(); }
  ~content_change() { time_.changed(); }
  content_change(const content_change&) = delete;
  content_change& operator=(const content_change&) = delete;

private:
  content_time& time_;
};

// What stands for the image at `path`: the kept time if it still belongs to the file, else the
// file's mtime; nullopt when it cannot be looked at. These two make system calls that may block.
[[nodiscard]] std::optional<std::timespec> load_content_time(const std::string& path);
void keep_content_time(const std::string& path, std::timespec time);

} // namespace bgfs
