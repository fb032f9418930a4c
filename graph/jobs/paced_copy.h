// SPDX-License-Identifier: MIT
// Copying what layers of a chain hold down into a node below them, at the pace of a job: slice
// after slice, with a pause point between any two. What is still to be copied may grow meanwhile.
#pragma once

#include "graph/jobs/copy.h"
#include "graph/jobs/job.h"
#include "graph/model/bitmap_change.h"

namespace bgfs {

// The parts of a disk that are still to be copied.
class copy_backlog {
public:
  virtual ~copy_backlog() = default;
  // What was added behind the back of a pass becomes a part of the next one.
  virtual void begin_pass() = 0;
  // The next run of this pass that ends after `from`, cut off before it; nullopt: there is none.
  [[nodiscard]] virtual std::optional<byte_range> next(u64 from) const = 0;
  // The beginning of what `next` gave counts as copied.
  virtual void take(byte_range range) = 0;
  // With what comes after this pass.
  [[nodiscard]] virtual u64 bytes() const = 0;
};

// All of a disk that nobody writes to, from front to back.
class whole_disk_backlog final : public copy_backlog {
public:
  explicit whole_disk_backlog(u64 length) : length_(length) {}
  void begin_pass() override {}
  [[nodiscard]] std::optional<byte_range> next(u64 from) const override {
    return from < length_ ? std::optional(byte_range::between(from, length_)) : std::nullopt;
  }
  void take(byte_range range) override { position_ = range.end(); }
  [[nodiscard]] u64 bytes() const override { return length_ - position_; }

private:
  const u64 length_;
  u64 position_ = 0;
};

// What a dirty bitmap marks: all of the disk at first. The bitmap is held and nobody else's, and is
// cleared when a pass begins, before anything is read: a write that has ended by then is seen by
// the pass, one that has not is marked when it ends.
class dirty_backlog final : public copy_backlog {
public:
  explicit dirty_backlog(dirty_bitmap& which);
  void begin_pass() override;
  [[nodiscard]] std::optional<byte_range> next(u64 from) const override;
  void take(byte_range range) override;
  [[nodiscard]] u64 bytes() const override;

private:
  [[nodiscard]] u64 bytes_of(const dirty_bits& bits) const;
  dirty_bitmap& bitmap_;
  dirty_bits pass_; // in its blocks
};

class paced_copy {
public:
  // All of them outlive it. `from` is over the layers, `base` the node below them that `to` is
  // over, and that has what none of them holds.
  paced_copy(job& control, root& from, const node& base, root& to, copy_backlog& backlog)
      : control_(control), from_(from), base_(base), to_(to), backlog_(backlog) {}

  // Copies what is in the backlog, once from front to back; what is put there behind it meanwhile
  // is left.
  task<void> pass();
  // The same for all that there is, however it grew, while the caller has everything above the
  // layers drained: requests are made past `from`, and nothing pauses.
  task<void> rest_drained();
  // As pass(), with `above`, the topmost of the layers, drained for each slice, of `length` bytes:
  // who writes faster than this copies has to wait.
  task<void> pass_pressing(node& above, u64 length);

  // Whether somebody has set the speed of the job.
  [[nodiscard]] bool is_limited() const { return is_limited_; }

private:
  enum class gate : bool { open, drained };
  task<u64> step(u64 from, u64 length_max, gate how);
  task<u64> length_below(byte_range run) const;
  task<void> copy(byte_range range, gate how);
  task<void> slice_drained(u64& at, u64 length);
  void report() const { control_.set_progress(done_, done_ + backlog_.bytes()); }

  job& control_;
  root& from_;
  const node& base_;
  root& to_;
  copy_backlog& backlog_;
  u64 done_ = 0;
  u64 copied_ = 0; // bytes since the last pause point
  bool is_limited_ = false;
};

} // namespace bgfs
