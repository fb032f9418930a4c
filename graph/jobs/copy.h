// SPDX-License-Identifier: MIT
// Copying disks: what the status of the source says is zero is not read, what reads as zero is not
// written where the target reads as zero already, and several pieces are under way at once.
#pragma once

#include "graph/model/graph.h"

#include <functional>

namespace bgfs {

// Where copies go.
class copy_target {
public:
  virtual ~copy_target() = default;
  virtual task<void> write(u64 offset, std::span<const std::byte> bytes) = 0;
  virtual task<void> write_zeroes(byte_range range) = 0;
  // Each write begins where the one before it has ended, whatever order the plan asks for.
  [[nodiscard]] virtual bool is_stream() const { return false; }
  // Lets the host copy these bytes of `from`. After a failure they can still be written.
  virtual task<void> copy_from(root& from, byte_range range, u64 offset);
};

class root_copy_target final : public copy_target {
public:
  // `compressed_unit`: clusters of this size are written compressed. 0: nothing is.
  root_copy_target(root& to, write_flags flags, u64 compressed_unit = 0)
      : to_(to), flags_(flags), compressed_unit_(compressed_unit) {}
  task<void> write(u64 offset, std::span<const std::byte> bytes) override;
  task<void> write_zeroes(byte_range range) override;
  task<void> copy_from(root& from, byte_range range, u64 offset) override;

private:
  root& to_;
  write_flags flags_;
  u64 compressed_unit_;
};

// A descriptor that is written from front to back, such as a pipe; it is not closed here.
class stream_copy_target final : public copy_target {
public:
  stream_copy_target(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}
  [[nodiscard]] bool is_stream() const override { return true; }
  task<void> write(u64 offset, std::span<const std::byte> bytes) override;
  task<void> write_zeroes(byte_range range) override;

private:
  int fd_;
  std::string name_;
  u64 position_ = 0;
};

struct copy_source {
  root* from = nullptr;
  u64 length = 0;
  // What no layer above this one holds is left out: the target has the same below. Null: nothing is
  // left out.
  const node* shared_base = nullptr;
  u64 offset = 0; // where in `from` its part begins
  // The caller has drained what is above its top: it is read past `from`, which would wait.
  bool is_drained = false;
};

enum class write_order : u8 {
  any,
  begun,   // in the order of their offsets, which keeps a new image in order, too
  finished // each when the one before it has ended
};

struct copy_plan {
  std::vector<copy_source> sources; // one behind the other in the target
  copy_target* to = nullptr;
  unsigned parallel = 8;
  write_order order = write_order::begun;
  // Zeroes of at least this many bytes are found in data, too, and not written as data. 0: every
  // byte is written, also where the source has a hole.
  u64 zero_unit = 4096;
  // False: only what the status of the source calls zero is not written as data.
  bool looks_for_zeroes = true;
  bool target_reads_zero = false;
  // Data are written in whole units of the target, but at its end: what a compressed write takes.
  // With it, zeroes are found in whole units only, whatever zero_unit says.
  u64 write_unit = 1;
  // The host copies data where it can (copy_file_range); what it cannot is read and written. Then
  // nothing looks for zeroes in data.
  bool offloads = false;
  // So many bytes of data a second, one second with the next. 0: as fast as it goes.
  u64 bytes_per_second = 0;
  // What cannot be read, sector by sector, is zero in the target, and told here, in the order of
  // the writes: a range of the source. May not suspend. Null: the first such error ends the copy.
  std::function<void(byte_range range, const error& why)> unreadable = {};
  // Called now and then with bytes done and bytes in all. May not suspend.
  std::function<void(u64 done, u64 total)> progress;
};

// Copies and returns when all is written (not flushed). After an error the target is incomplete.
task<void> copy_disks(loop& home, copy_plan plan);

} // namespace bgfs
