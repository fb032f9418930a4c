// SPDX-License-Identifier: MIT
// For the sources of raw_disk: marks a change of the disk while it runs, and keeps changes apart
// from the reserving of space.
#pragma once

#include "fuse/tree/raw_disk.h"

namespace bgfs {

// Made directly after may_change() returned, with no await between.
class raw_disk::change {
public:
  explicit change(raw_disk& disk) : disk_(disk), marked_(disk.time_) {
    BGFS_ASSERT(!disk_.is_reserving_);
    disk_.changes_running_++;
    mark();
  }
  ~change() {
    mark();
    if (--disk_.changes_running_ == 0)
      disk_.unchanging_.wake_all();
  }
  change(const change&) = delete;
  change& operator=(const change&) = delete;

private:
  void mark() const {
    disk_.change_count_++;
    disk_.allocated_.reset();
    disk_.has_unflushed_ = true;
  }
  raw_disk& disk_;
  content_change marked_;
};

// While it lives no change begins; the maker then waits until none is running. Made under
// resizing_, so that there is one at most.
class raw_disk::reservation {
public:
  explicit reservation(raw_disk& disk) : disk_(disk) { disk_.is_reserving_ = true; }
  ~reservation() {
    disk_.is_reserving_ = false;
    disk_.change_count_++;
    disk_.allocated_.reset();
    disk_.has_unflushed_ = true;
    disk_.reserved_.wake_all();
  }
  reservation(const reservation&) = delete;
  reservation& operator=(const reservation&) = delete;

private:
  raw_disk& disk_;
};

} // namespace bgfs
