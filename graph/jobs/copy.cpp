// SPDX-License-Identifier: MIT
#include "graph/jobs/copy.h"

#include "graph/base/is_zero.h"
#include "graph/io/buffer_pool.h"
#include "graph/io/spawn.h"
#include "graph/io/sync.h"

#include <algorithm>

namespace bgfs {

namespace {

constexpr u64 piece_length_max = 2 * MiB;
// Runs that are not read may be longer; the bound keeps progress moving.
constexpr u64 run_length_max = GiB;

enum class piece_kind : u8 { data, zero, shared };

// A run of the source with one answer, and where it goes.
struct piece {
  root* from = nullptr;
  byte_range range; // in the source
  u64 to = 0;       // in the target
  piece_kind kind = piece_kind::data;
  u64 number = 0; // pieces are numbered in the order of their offsets
};

class copier {
public:
  copier(loop& home, copy_plan plan) : home_(home), plan_(std::move(plan)) {
    for (const copy_source& s : plan_.sources)
      total_ += s.length;
  }

  task<void> run() {
    std::vector<task<void>> workers;
    const unsigned count = std::clamp(plan_.parallel, 1U, copy_parallel_max);
    for (unsigned i = 0; i < count; i++)
      workers.push_back(work());
    report();
    co_await when_all(std::move(workers));
    report();
  }

private:
  task<void> work() {
    std::optional<piece> next = co_await take_piece();
    while (next) {
      co_await copy(*next);
      done_ += next->range.length;
      report();
      next = co_await take_piece();
    }
  }

  void report() const {
    if (plan_.progress)
      plan_.progress(done_, total_);
  }

  // The next run of the source. One at a time asks, so pieces are in order and do not overlap.
  task<std::optional<piece>> take_piece() {
    const async_mutex::guard alone = co_await taking_.lock();
    while (index_ < plan_.sources.size() && position_ == plan_.sources[index_].length) {
      base_ += plan_.sources[index_++].length;
      position_ = 0;
    }
    if (index_ == plan_.sources.size())
      co_return std::nullopt;
    const copy_source& source = plan_.sources[index_];
    const u64 rest = std::min(source.length - position_, run_length_max);
    const block_status status =
        co_await context(source.from->top().status_above({position_, rest}, source.shared_base),
                         "reading the status of bytes at {:#x}", position_);
    BGFS_ASSERT(status.length > 0, "M5: a status makes progress");
    piece p{.from = source.from,
            .range = {position_, std::min(rest, status.length)},
            .to = base_ + position_,
            .kind = kind_of(status, source),
            .number = taken_++};
    if (p.kind == piece_kind::data)
      p.range.length =
          std::min(p.range.length, piece_length_max - p.range.offset % piece_length_max);
    position_ += p.range.length;
    co_return p;
  }

  [[nodiscard]] piece_kind kind_of(const block_status& status, const copy_source& source) const {
    if (source.shared_base != nullptr && !status.is_allocated && !status.is_zero)
      return piece_kind::shared;
    const bool may_be_holes = plan_.zero_unit != 0;
    return status.is_zero && may_be_holes ? piece_kind::zero : piece_kind::data;
  }

  task<void> copy(const piece& p) {
    buffer content;
    if (p.kind == piece_kind::data) {
      content = home_.buffers().allocate(p.range.length);
      co_await context(p.from->read(p.range.offset, content.bytes()),
                       "reading {} bytes at {:#x} of the source", p.range.length, p.range.offset);
    }
    if (plan_.is_in_order) {
      while (turn_ != p.number)
        co_await turns_.wait();
    }
    if (p.kind == piece_kind::zero && !plan_.target_reads_zero)
      co_await write_zeroes({p.to, p.range.length});
    if (p.kind == piece_kind::data)
      co_await write_data(p.to, content.bytes());
    turn_++;
    turns_.wake_all();
  }

  task<void> write_zeroes(byte_range range) {
    co_await context(plan_.to->write_zeroes(range), "zeroing {} bytes at {:#x} of the target",
                     range.length, range.offset);
  }

  // Splits at the units of the target, so that holes fall where the target can have them.
  task<void> write_data(u64 to, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const bool is_hole = plan_.zero_unit != 0 && is_zero(bytes.first(unit_at(to, bytes.size())));
      std::size_t length = unit_at(to, bytes.size());
      while (length < bytes.size() && is_hole == is_zero_unit(to + length, bytes.subspan(length)))
        length += unit_at(to + length, bytes.size() - length);
      if (!is_hole) {
        co_await context(plan_.to->write(to, bytes.first(length)),
                         "writing {} bytes at {:#x} of the target", length, to);
      } else if (!plan_.target_reads_zero) {
        co_await write_zeroes({to, length});
      }
      to += length;
      bytes = bytes.subspan(length);
    }
  }

  [[nodiscard]] bool is_zero_unit(u64 to, std::span<const std::byte> bytes) const {
    return plan_.zero_unit != 0 && is_zero(bytes.first(unit_at(to, bytes.size())));
  }

  [[nodiscard]] std::size_t unit_at(u64 to, std::size_t length) const {
    if (plan_.zero_unit == 0)
      return length;
    return std::min<u64>(length, plan_.zero_unit - to % plan_.zero_unit);
  }

  loop& home_;
  copy_plan plan_;
  u64 total_ = 0;
  u64 done_ = 0;

  async_mutex taking_;
  std::size_t index_ = 0; // of the source that is being taken from
  u64 position_ = 0;      // in that source
  u64 base_ = 0;          // of that source in the target
  u64 taken_ = 0;

  u64 turn_ = 0; // the number of the piece that may be written
  wait_queue turns_;
};

} // namespace

task<void> copy_disks(loop& home, copy_plan plan) {
  copier c(home, std::move(plan));
  co_await c.run();
}

} // namespace bgfs
