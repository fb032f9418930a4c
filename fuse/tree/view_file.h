// SPDX-License-Identifier: MIT
// The inode of a view.
#pragma once

#include "fuse/tree/inode.h"
#include "fuse/tree/shown_disk.h"
#include "fuse/tree/view.h"

namespace bgfs {

// How the target of a view is found again each time it is opened: the graph may have changed.
struct view_place {
  mount_state& mount;
  root_pointer root = {};
  std::optional<unsigned> layer = {};
  std::string node_name = {}; // of nodes/NAME
  shown_pointer shown = {};
  std::string snapshot = {};             // view_subject::snapshot
  std::string bitmap = {};               // view_subject::bitmap
  std::shared_ptr<disk_file> whole = {}; // of partitions/; shared by what is below it
  std::string point = {};                // view_subject::point
  job_pointer of_job = {};               // view_subject::subject_job

  // Fails when it has no medium, or the layer or node is gone.
  [[nodiscard]] result<view_subject> subject(u32 pid) const;
};

// Of two jobs with one name, one after the other.
[[nodiscard]] std::string identity_of(const job& which);

class view_file final : public inode {
public:
  view_file(const view& what, view_place where) : view_(what), place_(std::move(where)) {}

  task<attributes> describe() override;
  view_file* as_view() override { return this; }
  exported_root* root_of() override { return place_.root.get(); }
  [[nodiscard]] std::string identity() const override {
    if (place_.shown != nullptr)
      return place_.shown->identity();
    if (place_.whole != nullptr)
      return place_.whole->identity();
    if (!place_.point.empty())
      return place_.point;
    if (place_.of_job != nullptr)
      return identity_of(*place_.of_job);
    return place_.bitmap.empty() ? place_.snapshot : place_.bitmap;
  }

  [[nodiscard]] const view& what() const { return view_; }
  [[nodiscard]] const view_place& where() const { return place_; }
  [[nodiscard]] result<view_subject> subject(u32 pid) const;
  // The log of its directory.
  [[nodiscard]] error_log& log() const;

  void set_rendered_length(u64 length) { rendered_length_ = length; }

private:
  const view& view_;
  view_place place_;
  u64 rendered_length_ = 0; // of the latest rendering; 0: never opened
};

} // namespace bgfs
