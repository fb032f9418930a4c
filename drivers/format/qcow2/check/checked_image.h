// SPDX-License-Identifier: MIT
// An image that is open to be checked and for nothing else (node_options::is_for_check): what a
// check is for could not be opened as a disk. It cannot be read or written, and opening it changes
// nothing.
#pragma once

#include "drivers/format/qcow2/header.h"
#include "graph/model/driver.h"
#include "graph/model/edge.h"

namespace bgfs::qcow2 {

class checked_image final : public driver, public checkable {
public:
  // Fails where not even the header makes sense.
  static task<std::unique_ptr<driver>> open(edge& file);

  [[nodiscard]] u64 length() const override { return header_.disk_length; }
  task<void> close() override { co_return; }
  // One at a time.
  task<check_result> check(check_mode mode, check_sink& sink) override;

private:
  checked_image(edge& file, header h) : file_(file), header_(std::move(h)) {}
  edge& file_;
  header header_;
};

// What is done before a dirty image may be written: its refcounts may be out of date, so all that
// can be repaired is (reference 3.12). `h` is as on the disk afterwards; fails, with what was
// found, if anything is left that is wrong.
task<void> repair_dirty(edge& file, header& h);

} // namespace bgfs::qcow2
